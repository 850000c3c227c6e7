#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The Debian packages that building, testing and linting need.
#
#   deps.sh list [SET]         print them
#   deps.sh missing [SET]      print those that are not installed
#   deps.sh install [SET]      install those; needs root
#   deps.sh lint-tools         fail if one of lint's tools is not there
#
# SET: "kernel", those that building and booting kernels needs, besides; "bench",
# those of the benches.

set -eu

packages='
build-essential git patch xz-utils pkg-config debian-archive-keyring
libprotobuf-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler
libnl-3-dev libnl-route-3-dev libcap-dev libnet1-dev uuid-dev libbsd-dev
libgnutls28-dev libnftables-dev
python3 python3-protobuf python3-yaml libaio-dev iproute2 iptables nftables procps openssl runc
clang-format clang-tidy cppcheck shellcheck
'
kernel_packages='
bison flex bc libelf-dev qemu-system-x86
'
bench_packages='
gnuplot-nox liburing-dev util-linux-extra postgresql
'
case ${2:-} in
kernel) packages="$packages $kernel_packages" ;;
bench) packages="$packages $bench_packages" ;;
esac

say() {
	echo "deps: $*" >&2
}

list() {
	# shellcheck disable=SC2086 # one word per package
	printf '%s\n' $packages
}

missing() {
	if ! command -v dpkg-query >/dev/null; then
		say "this is not Debian; see that you have the equivalents of:$packages"
		return
	fi
	# shellcheck disable=SC2046 # one word per package
	have=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $(list) 2>/dev/null |
		sed -n 's/^installed //p')
	list | grep -vxF "$have" || :
}

install() {
	need=$(missing | tr '\n' ' ')
	[ -n "$need" ] || return 0
	say "missing packages: $need"
	if [ "$(id -u)" -ne 0 ]; then
		say "not root, so nothing is installed; 'make deps' as root, or:"
		say "  apt-get install --no-install-recommends $need"
		exit 1
	fi
	export DEBIAN_FRONTEND=noninteractive
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	# shellcheck disable=SC2086
	set -- apt-get install -q -y --no-install-recommends $need
	"$@" </dev/null >"$log" 2>&1 ||
		{ apt-get update -q </dev/null && "$@" </dev/null; } >>"$log" 2>&1 || {
		tail -n 30 "$log" >&2
		say "apt-get install failed"
		exit 1
	}
	say "installed"
}

lint_tools() {
	rc=0
	for tool in clang-format clang-tidy cppcheck shellcheck; do
		command -v "$tool" >/dev/null || {
			say "lint needs $tool: 'make deps', or apt-get install $tool"
			rc=1
		}
	done
	return $rc
}

case ${1:-} in
list) list ;;
missing) missing ;;
install) install ;;
lint-tools) lint_tools ;;
*)
	say "usage: deps.sh list|missing|install [kernel|bench] | lint-tools"
	exit 1
	;;
esac
