#!/usr/bin/env bash
# faults.sh [GO TEST FLAGS]: cause every fault of the first table of FAULTS.md and print that table with what was seen.
# Fails where a test does, or where a row has no line: all of 1 to 28.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT

status=0
ASIDE_FAULTS=measure ASIDE_REQUIRE_REDIS=1 go test -count=1 -v -p 1 -timeout 30m \
	-run '^TestFault|^TestEveryCallIsAnswered|^TestHowLongCallsTake|^TestRandomFaults' "$@" ./internal/tests/... >"$log" 2>&1 || status=$?

sed -n 's/^ *[a-z_]*_test\.go:[0-9]*: fault|/|/p' "$log" | sort -s -t '|' -k 2,2n | awk -F '|' '
	BEGIN { head = "row|fault|expected|seen"; split(head, name, "|") }
	{
		row[$2] = 1
		for (i = 1; i <= 4; i++) {
			cell[NR, i] = $(i + 1)
			if (i < 4 && length($(i + 1)) > width[i]) width[i] = length($(i + 1))
		}
	}
	END {
		for (i = 1; i < 4; i++) if (length(name[i]) > width[i]) width[i] = length(name[i])
		form = "| %" width[1] "s | %-" width[2] "s | %-" width[3] "s | %s\n"
		printf form, name[1], name[2], name[3], name[4]
		for (n = 1; n <= NR; n++) printf form, cell[n, 1] ? cell[n, 1] : "", cell[n, 2], cell[n, 3], cell[n, 4]
		for (i = 1; i <= 28; i++) if (!(i in row)) { print "row " i " has not been seen" > "/dev/stderr"; missing = 1 }
		exit missing
	}
' || status=1

if [ "$status" -ne 0 ]; then
	grep -vE '^=== |fault\|' "$log" | grep -B2 -A20 -E -- '--- FAIL|Error Trace|panic:|^FAIL' >&2 || true
fi
exit "$status"
