#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Break the series in one place after the other: does a test notice?
#
#   mutate.sh DIR FRAGMENT... [-- NAME...]
#
# A mutation is kernel/test/mutations/NAME.patch, which goes on top of the
# series. "Found-by:" in it names tests of build/kernel/minor, of which one
# has to fail, or the kernel has to complain. Its number is that of the patch
# it is about. With -- only those of these names. Works in DIR, which is kept:
# the first kernel built there takes minutes, the others seconds.

set -eu
. "$(dirname "$0")/../../scripts/series.sh"
# shellcheck disable=SC2154 # patches is series.sh's
here=$(dirname "$0")
dir=$1
shift
fragments='' names=''
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	fragments="$fragments $1"
	shift
done
[ $# -eq 0 ] || shift
names=$*
tree=$dir/src
rc=0

[ -n "$names" ] || names=$(cd "$here/../test/mutations" && echo *.patch | sed 's/\.patch//g')

# The tree is that of the series, whatever became of the last run.
if [ ! -e "$dir/series" ] || ! cat "$SERIES_DIR/series" "$SERIES_DIR$patches"/* | cmp -s - "$dir/series"; then
	rm -rf "$tree"
	mkdir -p "$dir"
	unpack "$tree"
	for name in $(series "$SERIES_DIR"); do
		apply_patch "$tree" "$name"
	done
	cat "$SERIES_DIR/series" "$SERIES_DIR$patches"/* >"$dir/series"
	rm -f "$dir/applied"
fi

undo() {
	[ -e "$dir/applied" ] || return 0
	patch -d "$tree" -R -p1 --fuzz=0 --batch --no-backup-if-mismatch <"$dir/applied" >/dev/null
	rm "$dir/applied"
}

# verdict NAME TESTS: one of them failed, or the kernel had to say something.
verdict() {
	found=
	for test in $2; do
		! grep -qE "^not ok $test(:|\$)" "$dir/run/results" || found="$found $test"
	done
	[ -n "$found" ] || found=$(sed -nE 's/^not ok ([^:]*: the kernel logged.*)	.*/ \1/p' "$dir/run/results" | head -n 1)
	if [ -n "$found" ]; then
		echo "ok $1: found by$found"
	else
		echo "not ok $1: none of '$2' failed; $dir/run"
		rc=1
	fi
}

undo
for name in $names; do
	file=$here/../test/mutations/$name.patch
	[ -e "$file" ] || die "there is no $file"
	tests=$(sed -n 's/^Found-by: *//p' "$file")
	cp "$file" "$dir/applied.new"
	patch -d "$tree" -p1 --fuzz=0 --batch --forward --no-backup-if-mismatch \
		<"$file" >"$dir/patch.log" || die "$name does not apply: $dir/patch.log"
	mv "$dir/applied.new" "$dir/applied"
	# shellcheck disable=SC2086 # one word per fragment
	sh "$here/build.sh" "$tree" "$dir/obj" $fragments >"$dir/build.log" 2>&1 || {
		cat "$dir/build.log" >&2
		die "$name does not build"
	}
	rm -rf "$dir/run"
	"$here/boot.py" --run "$dir/run" --env RIG_KERNEL=patched --env "RIG_TESTS=$tests" \
		"$dir/obj/bzImage" "$here/../test/guest/minor.sh" >"$dir/boot.log" 2>&1 || :
	verdict "$name" "$tests"
	undo
done
exit $rc
