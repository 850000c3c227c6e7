#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Process 1 of the guest. The root it finds is the host's, by 9p and
# read-only; it puts a tmpfs over that, by overlayfs, and goes on there, so
# programs may write what they like and it is gone with the guest.
#
# boot.py has left in the directory rig.run= of the command line
#
#   list      the tests: NAME TIMEOUT FILE, one per line
#   env       assignments for the shell that the tests see
#
# Three virtio ports go out: rig.status (lines, see run_test), rig.files (the
# archives of what tests kept); the kernel's log is the serial console.

set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/root
TERM=linux
LC_ALL=C
export PATH HOME TERM LC_ALL

# The end of process 1 is a panic, and the host sees it.
die() {
	echo "rig: $*" >/dev/console
	exit 1
}

argument() {
	tr ' ' '\n' </proc/cmdline | sed -n "s|^$1=||p"
}

# The first half: on the host's root.
if [ "${1:-}" != again ]; then
	mount -t proc proc /proc || die "no /proc"
	repo=$(argument rig.repo)
	mount -t tmpfs -o mode=755 rig /tmp || die "no tmpfs"
	mkdir /tmp/upper /tmp/work /tmp/root
	mount -t overlay -o "lowerdir=/,upperdir=/tmp/upper,workdir=/tmp/work" rig /tmp/root ||
		die "no overlayfs over 9p"
	umount /proc
	cd /tmp/root || die "no root"
	# The tmpfs stays alive as the overlay's upper layer.
	mkdir -p .oldroot
	pivot_root . .oldroot || die "pivot_root"
	exec chroot . "$repo/kernel/rig/init.sh" again
fi

umount -l /.oldroot && rmdir /.oldroot
mount -t proc proc /proc
mount -t sysfs sysfs /sys
# The repository may be where the guest gets a /tmp, a /run and a /dev of its own.
repo=$(argument rig.repo)
{ mkdir /.repo && mount --bind "$repo" /.repo; } || die "no $repo"
mount -t devtmpfs -o mode=755 dev /dev
mkdir -p /dev/pts /dev/shm /dev/mqueue /dev/hugepages
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t tmpfs -o mode=755 run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sfn /proc/self/fd /dev/fd
ln -sfn /proc/self/fd/0 /dev/stdin
ln -sfn /proc/self/fd/1 /dev/stdout
ln -sfn /proc/self/fd/2 /dev/stderr
ln -sfn pts/ptmx /dev/ptmx

[ -e "$repo/kernel/rig/init.sh" ] || { mkdir -p "$repo" && mount --bind /.repo "$repo"; }
umount /.repo && rmdir /.repo
dir=$(argument rig.run)
cd "$repo" || die "no $repo"
hostname rig 2>/dev/null || echo rig >/proc/sys/kernel/hostname
ip link set lo up
echo 64 >/proc/sys/vm/nr_hugepages
sed 's/[a-z]*/+&/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
if [ -b /dev/vda ]; then
	{ mkswap /dev/vda >/dev/null && swapon /dev/vda; } || die "no swap"
fi

port() {
	for _p in /sys/class/virtio-ports/*; do
		[ "$(cat "$_p/name")" = "$1" ] && echo "/dev/${_p##*/}"
	done
}

set -a
# shellcheck disable=SC1091 # made by boot.py
. "$dir/env"
set +a

if [ "$(argument rig.shell)" = 1 ]; then
	echo "rig: a shell in the guest; the guest ends with it"
	setsid -c -w /bin/bash -i </dev/ttyS0 >/dev/ttyS0 2>&1
	echo b >/proc/sysrq-trigger
	sleep 60
fi

exec 3>"$(port rig.status)" 4>"$(port rig.files)" || die "no ports to the host"

say() {
	echo "$*" >&3
}

# run_test NAME TIMEOUT FILE
#
# To the host: "begin NAME", then what the test prints, each line with "> "
# before it, and "end NAME STATUS".
run_test() {
	say "begin $1"
	echo "rig: begin $1" >/dev/kmsg
	RIG_KEEP=/run/rig/$1
	export RIG_KEEP
	mkdir -p "$RIG_KEEP"
	out=/run/rig.out
	: >$out
	# By way of a file: what a test leaves behind may hold a pipe for ever.
	setsid timeout -k 10 "$2" "$3" </dev/null >$out 2>&1 3>&- 4>&- &
	pid=$!
	tail -n +1 -s 0.2 -f --pid=$pid $out 2>/dev/null 3>&- 4>&- | sed -u 's/^/> /' >&3
	wait $pid
	rc=$?
	# All but this process.
	kill -9 -1
	wait
	[ -z "$(ls -A "$RIG_KEEP")" ] || tar -C /run/rig -cf - "$1" >&4
	rm -rf "$RIG_KEEP"
	echo "rig: end $1" >/dev/kmsg
	say "end $1 $rc"
}

while read -r name limit file; do
	run_test "$name" "$limit" "$file"
done <"$dir/list"
say "status 0"
echo b >/proc/sysrq-trigger
sleep 60
