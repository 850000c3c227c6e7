#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# What came of a run of tests.
#
#   summary.sh RESULTS ALLOWED-SKIPS
#
# RESULTS has a line for each test: "ok NAME", "not ok NAME: reason" or "skip
# NAME: reason", a tab, and its log. Names those that failed, or were skipped
# and are not listed; the last line is "N passed, N failed, N skipped". Fails
# if there are such, or if nothing passed.

set -u
results=$1 skips=$2

# allowed SKIP-LINE: is the test listed?
allowed() {
	_name=${1#skip }
	_name=${_name%%:*}
	_name=${_name%% *}
	grep -v '^#' "$skips" 2>/dev/null | cut -d' ' -f1 | grep -qxF "$_name"
}

echo
bad=0
tab=$(printf '\t')
while IFS=$tab read -r line log; do
	case $line in
	"not ok "*) why=FAILED ;;
	"skip "*)
		allowed "$line" && continue
		why="SKIPPED, BUT MUST RUN"
		;;
	*) continue ;;
	esac
	bad=1
	line=${line#not ok }
	echo "$why: ${line#skip }"
	echo "    log: $log"
done <"$results"

passed=$(grep -c '^ok ' "$results")
failed=$(grep -c '^not ok ' "$results")
skipped=$(grep -c '^skip ' "$results")
[ "$passed" -gt 0 ] || bad=1
echo "$passed passed, $failed failed, $skipped skipped"
exit $bad
