#!/bin/sh
# Make sure that there is what the tests need beside Go: a redis-server for them to start (they bring up servers of their
# own; nothing here needs to run as a service), on Linux a C compiler, without which Go has no race detector, promtool and
# prometheus, which check the metrics, rules and dashboard of asideprom, and for the page of asidehttp.Dashboard Chromium, and
# axe-core, which looks for what keeps people out. Without these four the tests that need them are skipped, so that their lack is
# no failure here.
set -eu
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1; }
redis_missing() { ! have redis-server; }
compiler_missing() { [ "$(uname -s)" = Linux ] && ! have "${CC:-gcc}"; }
prometheus_missing() {
	for tool in promtool prometheus; do
		have $tool || [ -x .tools/$tool ] || return 0
	done
	return 1
}

chromium_missing() { ! have chromium && ! have chromium-browser && ! have google-chrome && ! have google-chrome-stable; }
axe=4.14.1
axe_missing() { have npm && [ ! -f ".tools/axe-$axe.min.js" ]; }

if ! redis_missing && ! compiler_missing && ! prometheus_missing && ! chromium_missing && ! axe_missing; then
	exit 0
fi

root=
if [ "$(id -u)" -ne 0 ] && have sudo; then
	root=sudo
fi

# install PACKAGES: fails quietly, what is missing is told below.
install() {
	if have apt-get; then
		$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" || true
	elif have apk; then
		$root apk add --no-cache "$@" || true
	elif have dnf; then
		$root dnf install -y -q "$@" || true
	elif have yum; then
		$root yum install -y -q "$@" || true
	elif have brew; then
		brew install --quiet "$@" || true
	fi
}

if have apt-get; then
	$root apt-get update -qq || true # an outdated list may still do: let the install decide
fi
if redis_missing; then
	echo "redis-server not found: installing it"
	if have apt-get; then
		install redis-server
	else
		install redis
	fi
	# Some systems have Valkey in its place, and the names of Redis in a package beside it.
	redis_missing && have apk && install valkey valkey-compat
	redis_missing && have dnf && install valkey-compat-redis
fi
if compiler_missing; then
	echo "${CC:-gcc} not found: installing it for the race detector"
	if have apt-get; then
		install gcc libc6-dev
	elif have apk; then
		install gcc musl-dev
	else
		install gcc
	fi
fi

if prometheus_missing; then
	echo "promtool or prometheus not found: installing both"
	if have apt-get; then
		# The package would run a server as a service. Only the programs are taken out of it.
		tmp=$(mktemp -d)
		chmod 755 "$tmp" # apt downloads as a user of its own
		if (cd "$tmp" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb x); then
			mkdir -p .tools
			for tool in promtool prometheus; do
				rm -f .tools/$tool # one that runs cannot be written to
				cp "$tmp/x/usr/bin/$tool" .tools/$tool
			done
		fi
		rm -rf "$tmp"
	elif have apk || have brew; then
		install prometheus
	fi
	prometheus_missing && echo "prometheus could not be installed: the tests of asideprom that need it are skipped" >&2
fi

if chromium_missing; then
	echo "chromium not found: installing it"
	if have brew; then
		brew install --quiet --cask chromium || true
	else
		install chromium
	fi
	chromium_missing && echo "chromium could not be installed: the tests of the dashboard in a browser are skipped" >&2
fi
if axe_missing; then
	echo "axe-core not found: fetching it"
	tmp=$(mktemp -d)
	if (cd "$tmp" && npm pack --silent "axe-core@$axe" >/dev/null && tar xzf axe-core-*.tgz package/axe.min.js); then
		mkdir -p .tools
		cp "$tmp/package/axe.min.js" ".tools/axe-$axe.min.js"
	fi
	rm -rf "$tmp"
fi
axe_missing && echo "axe-core could not be fetched: the test of the dashboard that needs it is skipped" >&2

if redis_missing; then
	cat >&2 <<'END'
The tests need a redis-server (6.0 or later) in PATH, and it could not be installed here.
Install it with your system's package manager, or see https://redis.io/docs/latest/operate/oss_and_stack/install/,
then run this again. Without it, `go test ./...` still runs the tests that need no server.
END
	exit 1
fi
if compiler_missing; then
	cat >&2 <<'END'
Go's race detector needs a C compiler on Linux, and none could be installed here. Install gcc with your system's package
manager, then run this again. Without one, `go test ./...` runs the tests without the race detector.
END
	exit 1
fi
redis-server --version
