#!/bin/sh
# gofmt, go vet and staticcheck over every module. staticcheck.conf says which checks.
set -eu
cd "$(dirname "$0")/.."

staticcheck=honnef.co/go/tools/cmd/staticcheck@v0.8.2

echo "== gofmt"
unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
	echo "not formatted, run gofmt -w on:" >&2
	echo "$unformatted" >&2
	exit 1
fi
scripts/each-module.sh go vet ./...
scripts/each-module.sh go run "$staticcheck" ./...
