#!/bin/sh
# Make sure that there is a redis-server for the tests to start. The tests bring up
# servers of their own; nothing here needs to run as a service.
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

if have redis-server; then
	exit 0
fi

root=
if [ "$(id -u)" -ne 0 ] && have sudo; then
	root=sudo
fi

echo "redis-server not found: installing it"
if have apt-get; then
	# An outdated list may still do: let the install decide.
	$root apt-get update -qq || true
	$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server || true
elif have apk; then
	$root apk add --no-cache redis || $root apk add --no-cache valkey valkey-compat || true
elif have dnf; then
	# Fedora has Valkey in the place of Redis, and the names of Redis in a package beside it.
	$root dnf install -y -q redis || $root dnf install -y -q valkey-compat-redis || true
elif have yum; then
	$root yum install -y -q redis || true
elif have brew; then
	brew install --quiet redis || true
fi

if ! have redis-server; then
	cat >&2 <<'END'
The tests need a redis-server (6.0 or later) in PATH, and it could not be installed here.
Install it with your system's package manager, or see https://redis.io/docs/latest/operate/oss_and_stack/install/,
then run this again. Without it, `go test ./...` still runs the tests that need no server.
END
	exit 1
fi
redis-server --version
