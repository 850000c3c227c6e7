#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Configure and build a kernel.
#
#   build.sh [-c] [-f] SRC OUT FRAGMENT...
#
# SRC is a clean tree and stays one; what is made lies in OUT, the image as
# OUT/bzImage. The configuration is tinyconfig with the fragments put on
# top, and nothing else: what a fragment switches on brings no defaults
# along. Each line of a fragment must have come true in the end. With -f
# (foreign) SRC may be any version of the kernel: options it does not know
# are left out, and named. With -c that is all: nothing is built.

set -eu

self=build
foreign='' config_only=''
while getopts cf option; do
	case $option in
	c) config_only=1 ;;
	f) foreign=1 ;;
	*) exit 1 ;;
	esac
done
shift $((OPTIND - 1))
[ $# -ge 3 ] || {
	echo "usage: build.sh [-c] [-f] SRC OUT FRAGMENT..." >&2
	exit 1
}
src=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
shift 2

# What a build says must not depend on who builds, when and where.
LC_ALL=C
KBUILD_BUILD_USER=rig KBUILD_BUILD_HOST=rig KBUILD_BUILD_TIMESTAMP='2000-01-01'
export LC_ALL KBUILD_BUILD_USER KBUILD_BUILD_HOST KBUILD_BUILD_TIMESTAMP
unset MAKEFLAGS MFLAGS KCONFIG_ALLCONFIG KBUILD_OUTPUT ARCH CROSS_COMPILE

die() {
	echo "$self: $*" >&2
	exit 1
}

# phase WHAT COMMAND...: one line of progress; the output is for the log.
phase() {
	_what=$1
	shift
	_start=$(date +%s)
	"$@" >"$out/rig.log" 2>&1 </dev/null || {
		tail -n 40 "$out/rig.log" >&2
		die "$_what failed; the whole log: $out/rig.log"
	}
	echo "  $_what: $(($(date +%s) - _start)) s"
}

kmake() {
	make -C "$src" O="$out" -j"$(nproc)" "$@"
}

# known OPTION: does the tree have it?
known() {
	grep -rqsE --include='Kconfig*' "^[[:space:]]*(menu)?config ${1#CONFIG_}\$" "$src"
}

configure() {
	{
		cat "$src"/kernel/configs/tiny-base.config 2>/dev/null || :
		cat "$src"/kernel/configs/tiny.config "$src"/arch/x86/configs/tiny.config
		cat "$@"
	} >"$out/rig.config"
	rm -f "$out/.config"
	KCONFIG_ALLCONFIG="$out/rig.config" kmake allnoconfig && kmake olddefconfig
}

# check: each option asked for, by its last line in the fragments.
check() {
	_rc=0
	sed -nE 's/^(# )?(CONFIG_[A-Za-z0-9_]+)(=.*| is not set)$/\2/p' "$@" | sort -u >"$out/rig.options"
	while read -r _opt; do
		_want=$(grep -hE "^(# )?$_opt(=| is not set)" "$@" | tail -n 1)
		_have=$(grep -E "^(# )?$_opt(=| is not set)" "$out/.config" || echo "# $_opt is not set")
		[ "$_want" != "$_have" ] || continue
		if [ -n "$foreign" ] && ! known "$_opt"; then
			echo "  not in this tree: $_opt"
			continue
		fi
		echo "$self: asked for '$_want', but it is '$_have'" >&2
		_rc=1
	done <"$out/rig.options"
	return $_rc
}

phase configure configure "$@"
check "$@" || die "the configuration is not what was asked for"
[ -z "$config_only" ] || exit 0
phase compile kmake bzImage
grep -n 'warning:' "$out/rig.log" >"$out/warnings" || :
cp "$out/arch/x86/boot/bzImage" "$out/bzImage"
