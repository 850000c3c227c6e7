#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Check style and look for mistakes in our own sources.
#
#   lint.sh FLAGS     FLAGS is the plugin's compiler response file
#
# Every check runs, whatever the ones before it found.

set -u
flags=$1
max_lines=600
failed=

check() {
	echo "lint: $1" >&2
}
fail() {
	failed="$failed $1"
}
# Files below these directories, by the patterns given.
sources() {
	_find='-false'
	for _p in "$@"; do
		_find="$_find -o -name $_p"
	done
	set -f
	# shellcheck disable=SC2086
	find plugin test demo scripts bench kernel .ci -type f \( $_find \) 2>/dev/null |
		grep -v '/\.' | sort
	set +f
}

sh scripts/deps.sh lint-tools || exit 1

c_files=$(sources '*.c' '*.h')
plugin_c=$(ls plugin/*.c 2>/dev/null)
# shellcheck disable=SC2046
shells=$(grep -lE '^#!.*\b(ba|da)?sh$|^# shellcheck shell=' \
	$(sources '*.sh' 'run' '*.hook' '*.checkskip') .ci/run 2>/dev/null)

# shellcheck disable=SC2086 # lists of files, here and below
if [ -n "$c_files" ]; then
	check clang-format
	clang-format --dry-run -Werror $c_files || fail clang-format

	check "CRIU's rules for messages and white space"
	grep -nE '\<(pr_perror|pr_pwarn|fail)\>.*\\n"' $c_files && fail 'no-\n-in-pr_perror'
	grep -nE '\<(pr_(err|perror|warn|pwarn|debug|info|msg)|fail)\>.*%m' $c_files && fail 'no-%m'
	grep -nE '\<(pr_perror|pr_pwarn|fail)\>\(".*".*errno' $c_files && fail 'no-errno-in-pr_perror'
	grep -nE '^\s*\<pr_(err|warn|msg|info|debug)\>\(.*\);$' $c_files | grep -v '\\n' && fail 'pr_*-ends-in-\n'
	grep -nE '\s+$' $c_files && fail white-space-at-end-of-line
fi

# shellcheck disable=SC2086,SC2046
if [ -n "$plugin_c" ]; then
	check clang-tidy
	# clang does not know all of gcc's warnings.
	clang-tidy --quiet $plugin_c -- -std=gnu11 $(cat "$flags") -Wall -Wextra \
		-Wno-unknown-warning-option || fail clang-tidy

	check cppcheck
	cppcheck --quiet --std=c11 --enable=warning,portability,performance \
		--inline-suppr --suppress=missingInclude --suppress='*:build/criu/*' --suppress='*:build/plugin/*' \
		--error-exitcode=1 $(sed 's/^-iquote/-I/' "$flags") $plugin_c || fail cppcheck
fi

check shellcheck
# shellcheck disable=SC2086
shellcheck -x -P SCRIPTDIR $shells || fail shellcheck

check "licence of every file, length of the plugin's"
for file in $c_files $(sources '*.sh' '*.py' 'run' 'Makefile' '*.mk' '*.hook' '*.checkskip') \
	Makefile .ci/run .clang-tidy; do
	head -n 2 "$file" | grep -q 'SPDX-License-Identifier: GPL-2.0' || {
		echo "$file: no SPDX-License-Identifier in the first two lines"
		fail SPDX
	}
done
for file in plugin/*.[ch]; do
	[ -e "$file" ] || continue
	[ "$(wc -l <"$file")" -le $max_lines ] || {
		echo "$file: longer than $max_lines lines"
		fail length
	}
done

check "import and export of the series"
sh scripts/patches-roundtrip.sh build/roundtrip || fail patches-roundtrip

[ -z "$failed" ] || {
	echo "lint: failed:$failed" >&2
	exit 1
}
echo "lint: nothing found" >&2
