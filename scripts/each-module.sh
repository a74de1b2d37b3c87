#!/bin/sh
# each-module.sh COMMAND...: run a command in the root of every module of the
# workspace (go.work; without one, that is the root module alone), and stop at the
# first that fails. WITHOUT names one that is left out, such as bench/compare.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
modules=$(go list -m -f '{{.Dir}}')
echo "$modules" | while IFS= read -r dir; do
	[ "$dir" != "$root/${WITHOUT:-.}" ] || continue
	echo "== .${dir#"$root"}: $*"
	(cd "$dir" && "$@" </dev/null) # the loop's input is the list of modules
done
