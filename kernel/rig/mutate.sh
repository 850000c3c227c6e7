#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Break the series in one place after the other: does a test notice?
#
#   mutate.sh DIR FRAGMENT... [-- NUMBER...]
#
# kernel/test/mutations says what can be broken, and has a patch for the kernel
# with all of it; the kernel's command line says which. Each is a boot with the
# tests that have to notice. With -- only those of these numbers. The tree and
# the kernel are in DIR, and are kept.

set -eu
. "$(dirname "$0")/../../scripts/series.sh"
here=$(dirname "$0")
mutations=$here/../test/mutations
dir=$1
shift
fragments=''
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	fragments="$fragments $1"
	shift
done
[ $# -eq 0 ] || shift
wanted=$*
passed=0
failed=0

# The series with one more patch; and as little as can be is compiled again.
# shellcheck disable=SC2154 # patches is series.sh's
make_tree() {
	rm -rf "$dir/series"
	mkdir -p "$dir/series$patches"
	cp "$SERIES_DIR$patches"/*.patch "$mutations/9999-mutations.patch" "$dir/series$patches"
	{
		cat "$SERIES_DIR/series"
		echo 9999-mutations.patch
	} >"$dir/series/series"
	cat "$dir/series/series" "$dir/series$patches"/* | sha256sum >"$dir/key.new"
	if ! cmp -s "$dir/key.new" "$dir/key"; then
		rm -f "$dir/key"
		SERIES_DIR=$dir/series sh "$here/tree.sh" "$dir/src" patched "$dir/obj"
		mv "$dir/key.new" "$dir/key"
	fi
}

# boot NUMBER TESTS
boot() {
	rm -rf "$dir/run"
	"$here/boot.py" --run "$dir/run" --append "uffd_mutation=$1" \
		--env RIG_KERNEL=patched --env "RIG_TESTS=$2" \
		"$dir/obj/bzImage" "$here/../test/guest/minor.sh" >"$dir/boot.log" 2>&1 || :
}

# found TESTS: those that failed; or else what the kernel had to say.
found() {
	_found=
	for _test in $1; do
		! grep -qE "^not ok $_test(:|\$)" "$dir/run/results" || _found="$_found $_test"
	done
	[ -n "$_found" ] || _found=$(sed -nE 's/^not ok (.*: the kernel logged.*)\t.*/ \1/p' "$dir/run/results" |
		grep -vE 'INFO: task|rcu|soft lockup' | head -n 1)
	echo "$_found"
}

verdict() {
	if [ "$1" = ok ]; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
	fi
	echo "$*"
}

make_tree
# shellcheck disable=SC2086 # one word per fragment
sh "$here/build.sh" "$dir/src" "$dir/obj" $fragments

# Not broken, it must pass what has to notice.
if [ -z "$wanted" ]; then
	boot 0 "$(sed -n 's/^[0-9].*: //p' "$mutations/list" | tr '\n' ' ')"
	if grep -q '^not ok ' "$dir/run/results" || ! grep -q '^ok ' "$dir/run/results"; then
		verdict not ok "nothing broken: see $dir/run"
	else
		verdict ok "nothing broken: $(grep -c '^ok ' "$dir/run/results") tests pass"
	fi
fi
grep '^[0-9]' "$mutations/list" >"$dir/list"
while read -r number rest; do
	[ -z "$wanted" ] || echo " $wanted " | grep -q " $number " || continue
	what=${rest%: *}
	boot "$number" "${rest##*: }" </dev/null
	by=$(found "${rest##*: }")
	if [ -n "$by" ]; then
		verdict ok "$number $what: found by$by"
	else
		verdict not ok "$number $what: not found by ${rest##*: }"
	fi
done <"$dir/list"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
