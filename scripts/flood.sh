#!/bin/sh
# flood.sh TIME: one key sends orders at the rate limit for TIME, with Redis healthy, hung and gone, and in memory mode; a process for each, all at once.
set -eu
cd "$(dirname "$0")/.."
export ASIDE_FLOOD="${1:-10m}" ASIDE_REQUIRE_REDIS=1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

go test -c -o "$out/asidehttp.test" ./asidehttp
cd asidehttp
modes="memory healthy hung gone"
for mode in $modes; do
	"$out/asidehttp.test" -test.v -test.timeout 26h -test.run "^TestAFloodOfOrders\$/^$mode\$" >"$out/$mode" 2>&1 &
	echo $! >"$out/$mode.pid"
done
status=0
for mode in $modes; do
	wait "$(cat "$out/$mode.pid")" || status=1
	grep -v '^=== ' "$out/$mode"
done
exit $status
