#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Turn the series into commits to work on.
#
#   patches-import.sh DIR
#
# DIR becomes a git repository: the pristine source, tagged "base", then a
# commit for each patch. A commit's subject is the name of the patch file,
# its body is the DEP-3 header. Edit with git (rebase -i base), then
# patches-export. A DIR with work that was not exported is left alone.

set -eu
. "$(dirname "$0")/series.sh"
[ $# -eq 1 ] || die "usage: patches-import.sh DIR"
dir=$1

if [ -e "$dir" ]; then
	[ -d "$dir/.git" ] || die "$dir exists and is not a git repository"
	if unexported "$dir" >&2; then
		die "$dir holds the work above, which is not in the series:
'make $SERIES_TARGETS-export' it, or delete $dir to lose it"
	fi
fi
series_check

new=$dir.new
rm -rf "$new"
unpack "$new"
pgit -C "$new" init -q -b series
pgit -C "$new" config commit.cleanup whitespace
pgit -C "$new" config commit.template .git/template
pgit -C "$new" config user.name criu-patches
pgit -C "$new" config user.email criu-patches@localhost
cat >"$new/.git/template" <<EOF
NNNN-name-of-the-patch.patch

Description: one line
 More, indented by one space.
Origin: vendor
Forwarded: no
Last-Update: YYYY-MM-DD
EOF
pgit -C "$new" add -A -f
pgit -C "$new" commit -q --cleanup=verbatim -m "$(pristine)"
pgit -C "$new" tag base

for name in $(series "$SERIES_DIR"); do
	pgit -C "$new" apply --index --whitespace=nowarn - <"$SERIES_DIR$patches/$name" ||
		die "$name does not apply"
	{
		printf '%s\n\n' "$name"
		header "$SERIES_DIR$patches/$name"
	} | pgit -C "$new" commit -q --cleanup=verbatim --allow-empty -F -
done
pgit -C "$new" tag exported

rm -rf "$dir"
mv "$new" "$dir"
echo "$self: $BASE_NAME $BASE_VERSION and $(series "$SERIES_DIR" | wc -l) patches are in $dir"
