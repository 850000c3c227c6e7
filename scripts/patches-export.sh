#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Write the series from the commits that patches-import made and somebody
# worked on.
#
#   patches-export.sh DIR [OUTDIR]
#
# OUTDIR (default: the series' own directory) gets a patch per commit and
# the file "series". The diffs depend on no git version or configuration.

set -eu
. "$(dirname "$0")/series.sh"
{ [ $# -ge 1 ] && [ $# -le 2 ]; } || die "usage: patches-export.sh DIR [OUTDIR]"
dir=$1 out=${2:-$SERIES_DIR}

[ -d "$dir/.git" ] || die "no commits in $dir: 'make $SERIES_TARGETS-import' first"
for state in rebase-merge rebase-apply CHERRY_PICK_HEAD MERGE_HEAD; do
	[ ! -e "$dir/.git/$state" ] || die "$dir is in the middle of a rebase or merge"
done
dirty=$(pgit -C "$dir" status --porcelain)
[ -z "$dirty" ] || die "$dir has changes that are not committed:
$dirty"
pgit -C "$dir" merge-base --is-ancestor base HEAD || die "$dir: HEAD is not based on base"
[ "$(pgit -C "$dir" log -1 --format=%s base)" = "$(pristine)" ] ||
	die "$dir was made for another release than $BASE_VERSION"
[ -z "$(pgit -C "$dir" rev-list --merges base..HEAD)" ] ||
	die "$dir: a series has no merge commits"

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/new$patches"
: >"$tmp/new/series"

for commit in $(pgit -C "$dir" rev-list --reverse base..HEAD); do
	pgit -C "$dir" log -1 --format=%B "$commit" >"$tmp/msg"
	name=$(sed -n 1p "$tmp/msg")
	printf '%s\n' "$name" | grep -Eqx '[0-9]{4}-[A-Za-z0-9._+-]+\.patch' ||
		die "commit $commit: the subject '$name' is not a patch name like 0001-what.patch"
	[ ! -e "$tmp/new$patches/$name" ] || die "two commits are called $name"
	[ -z "$(sed -n 2p "$tmp/msg")" ] || die "$name: no blank line after the subject"
	# %B ends in a newline of its own after the message's.
	sed '1,2d' "$tmp/msg" | sed '${/^$/d;}' >"$tmp/header"
	header_check "$name" <"$tmp/header"
	{
		cat "$tmp/header"
		echo
		pgit -C "$dir" -c core.quotePath=true -c diff.suppressBlankEmpty=false \
			diff-tree -r -p --full-index --binary --no-color --no-ext-diff \
			--no-textconv --no-renames --no-relative --diff-algorithm=myers \
			--indent-heuristic --unified=3 --inter-hunk-context=0 \
			--src-prefix=a/ --dst-prefix=b/ -O/dev/null \
			"$commit^" "$commit"
	} >"$tmp/new$patches/$name"
	echo "$name" >>"$tmp/new/series"
done
LC_ALL=C sort -c "$tmp/new/series" 2>/dev/null ||
	die "the patches' numbers do not follow the order of the commits"

mkdir -p "$out$patches"
for name in $(series "$out"); do
	[ -e "$tmp/new$patches/$name" ] || rm -f "$out$patches/$name"
done
for file in series $(sed "s|^|.$patches/|" "$tmp/new/series"); do
	cmp -s "$tmp/new/$file" "$out/$file" || {
		cp "$tmp/new/$file" "$out/$file"
		echo "$self: wrote $out/${file#./}"
	}
done
[ "$out" != "$SERIES_DIR" ] || pgit -C "$dir" tag -f exported >/dev/null
echo "$self: $(wc -l <"$tmp/new/series") patches are in $out"
