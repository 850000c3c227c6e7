#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Is the guest what the other tests take for granted?
# timeout: 60
# shellcheck disable=SC2317 # the functions are called by check

set -u

check() {
	_name=$1
	shift
	if _out=$("$@" 2>&1); then
		echo "ok $_name"
	else
		echo "not ok $_name: $(printf '%s' "$_out" | tail -n 1 | tr '\n' ' ')"
		rc=1
	fi
}

writable_root() {
	echo x >/etc/rig-was-here && [ "$(cat /etc/rig-was-here)" = x ] && rm /etc/rig-was-here
}
swap_on() {
	cat /proc/swaps
	[ "$(wc -l </proc/swaps)" -eq 2 ]
}
huge_pages() {
	cat /proc/sys/vm/nr_hugepages
	[ "$(cat /proc/sys/vm/nr_hugepages)" -ge 16 ]
}
loopback_up() {
	ip -o addr show lo | grep -q 127.0.0.1
}
running_as_root() {
	grep '^CapEff' /proc/self/status
	[ "$(id -u)" -eq 0 ] && grep -q '^CapEff:.*ffffffff$' /proc/self/status
}

rc=0
echo 1..5
check writable_root writable_root
check swap_on swap_on
check huge_pages huge_pages
check loopback_up loopback_up
check running_as_root running_as_root
exit $rc
