#!/bin/sh
# fuzz.sh TIME: run each fuzz target of the root module and of asidecodec for TIME, one after the other.
set -eu
cd "$(dirname "$0")/.."
time=${1:-5s}
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# shellcheck disable=SC2016 # $dir is the template's
files=$(go list -f '{{$dir := .Dir}}{{range .TestGoFiles}}{{$dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$dir}}/{{.}}
{{end}}' ./... ./asidecodec/...)
# "DIRECTORY TARGET", a pair a line
targets=$(echo "$files" | while IFS= read -r file; do
	[ -z "$file" ] || sed -n "s|^func \(Fuzz[A-Za-z0-9_]*\)(.*|${file%/*} \1|p" "$file"
done)
if [ -z "$targets" ]; then
	echo "no fuzz targets"
	exit 0
fi

# Go spends up to 60 s on making each interesting input smaller; in a short run that is
# all it would do.
fuzz() {
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 200ms "$1" >"$out" 2>&1 </dev/null
}

# Before 1.27, Go's fuzzer may take the end of the fuzzing time for a failure of the
# target (https://go.dev/issue/75804): that one message, and no failing input.
deadline_race() {
	grep -q '^ *context deadline exceeded$' "$out" && ! grep -q 'Failing input written' "$out"
}

echo "$targets" | while read -r dir name; do
	echo "== $name (.${dir#"$PWD"}), $time"
	tries=1
	until fuzz "$dir" "$name"; do
		if [ "$tries" -ge 3 ] || ! deadline_race; then
			cat "$out"
			exit 1
		fi
		tries=$((tries + 1))
		echo "the fuzzer missed its own deadline: once more"
	done
	tail -n 3 "$out"
done
