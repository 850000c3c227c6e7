#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Does each step of the kernel's series apply without fuzz, build, add no
# warning, boot, and pass the tests of the interface? As long as minor faults
# are not offered, these are about what is there and about nothing of the rest
# being within reach.
#
#   verify.sh DIR FRAGMENT...
#
# Warnings are those of W=1, in the files that a patch changes, with and
# without it.

set -eu
. "$(dirname "$0")/../../scripts/series.sh"
here=$(dirname "$0")
[ $# -ge 2 ] || die "usage: verify.sh DIR FRAGMENT..."
dir=$1
shift
tree=$dir/src

# changed NAME: the C files that a patch changes, and that the step has.
changed() {
	sed -n 's|^+++ b/\(.*\.c\)$|\1|p' "$SERIES_DIR$patches/$1" | grep -v '^tools/' |
		while read -r _file; do
			[ ! -e "$tree/$_file" ] || echo "$_file"
		done
}

# warnings NAME: what W=1 has to say on these files. A line that has moved is
# no other warning.
warnings() {
	# shellcheck disable=SC2046 # one word per file
	set -- $(changed "$1" | sed 's/c$/o/')
	[ $# -gt 0 ] || return 0
	(
		cd "$tree" && for _object in "$@"; do
			rm -f "$O/$_object"
			# What the configuration leaves out can not be made.
			make O="$O" W=1 "$_object" 2>&1 </dev/null || :
		done
	) | sed -nE 's/^([^: ]+):[0-9:]+ (warning|error): /\1: /p' | sort
}

step() {
	_start=$(date +%s)
	sh "$here/build.sh" "$tree" "$dir/obj" "$@" >"$dir/build.log" 2>&1 || {
		cat "$dir/build.log" >&2
		die "the kernel does not build with $name"
	}
	_built=$(date +%s)
	_kernel=plain
	! grep -q UFFD_FEATURE_MINOR_SHMEM "$tree/include/uapi/linux/userfaultfd.h" || _kernel=patched
	"$here/boot.py" --run "$dir/run" --env "RIG_KERNEL=$_kernel" "$dir/obj/bzImage" \
		"$here/../test/guest/sanity.sh" "$here/../test/guest/minor.sh" >"$dir/boot.log" 2>&1 || {
		cat "$dir/boot.log" >&2
		die "the kernel does not boot, or a test fails, with $name"
	}
	_passed=$(grep -c '^ok ' "$dir/run/results")
	echo "$self: $name builds ($((_built - _start)) s), boots, and passes $_passed tests as $_kernel ($(($(date +%s) - _built)) s)"
}

series_check
rm -rf "$dir"
mkdir -p "$dir/warn"
O=$(realpath "$dir/warn")
unpack "$tree"
name="no patch"
step "$@"
sh "$here/build.sh" -c "$tree" "$dir/warn" "$@" >/dev/null
for name in $(series "$SERIES_DIR"); do
	warnings "$name" >"$dir/before"
	apply_patch "$tree" "$name"
	warnings "$name" >"$dir/after"
	comm -13 "$dir/before" "$dir/after" >"$dir/new"
	[ ! -s "$dir/new" ] || {
		cat "$dir/new" >&2
		die "$name adds these warnings"
	}
	step "$@"
done
echo "$self: $(series "$SERIES_DIR" | wc -l) patches apply, build and boot, each in turn"
rm -rf "$dir"
