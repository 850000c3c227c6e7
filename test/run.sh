#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Run the tests and say what came of it.
#
#   test/run.sh [GROUP | GROUP/SCRIPT]...
#
# The groups are unit (test/unit/run), e2e (each executable test/e2e/*.py but
# *lib.py), oracle (test/oracle/oracle.py) and zdtm (test/zdtm/run.sh); without
# arguments, all of them.
#
# A script prints, for each test, one of
#
#   ok NAME
#   not ok NAME: reason
#   skip NAME: reason
#
# and exits 0 only if nothing failed. It may print "1..N" to say how many
# tests there are. The rest of what it prints, and stderr, is its log,
# build/test-logs/GROUP-SCRIPT.log. A script has TEST_TIMEOUT seconds
# (default 600), or what a line "# timeout: SECONDS" in it says.
#
# It counts as a failure when a script dies, times out, prints no result or
# not as many as it said, or when the kernel logs a bug meanwhile. A skipped
# test fails the run unless test/allowed-skips lists it. The last line is
# "N passed, N failed, N skipped".

set -u
cd "$(dirname "$0")/.." || exit 1
logs=build/test-logs
kernel_bug='BUG:|WARNING:|Oops|KASAN|general protection'
LC_ALL=C
export LC_ALL

rm -rf "$logs"
mkdir -p "$logs"
: >"$logs/results"

# result LINE LOG: LINE is a script's verdict, or ours on the script.
result() {
	printf '%s\t%s\n' "$1" "$2" >>"$logs/results"
}
verdict() {
	printf '%9s  %s\n' "" "$1"
	result "$1" "$2"
}

# What the kernel has to complain about; nothing if it does not tell us.
kernel_log() {
	dmesg 2>/dev/null | grep -E "$kernel_bug" | sort || :
}

# show: the lines of a script's output as they come, each result with the
# seconds since the one before.
show() {
	_last=$(date +%s%3N)
	while IFS= read -r _line || [ -n "$_line" ]; do
		case $_line in
		"ok "* | "not ok "* | "skip "*)
			_now=$(date +%s%3N)
			_ms=$((_now - _last))
			printf '%5d.%01d s  %s\n' $((_ms / 1000)) $((_ms % 1000 / 100)) "$_line"
			_last=$_now
			;;
		esac
	done
}

# run_script NAME FILE
run_script() {
	name=$1 file=$2
	log=$logs/$(echo "$name" | tr / -).log
	out=$log.out
	: >"$log"
	if ! [ -x "$file" ]; then
		verdict "not ok $name: $file is missing or not executable" "$log"
		return
	fi
	limit=$(sed -n 's/^# timeout: *\([0-9][0-9]*\)$/\1/p' "$file" | head -n 1)
	limit=${limit:-${TEST_TIMEOUT:-600}}
	echo "$name:"
	kernel_log >"$logs/kernel.before"

	# The output goes through a file and not a pipe: what a test leaves
	# behind may hold it open for ever.
	: >"$out"
	timeout -k 10 "$limit" "$file" </dev/null >"$out" 2>>"$log" &
	pid=$!
	tail -q -n +1 -s 0.1 -f --pid=$pid "$out" 2>/dev/null | show
	wait $pid
	rc=$?

	grep -vE '^(ok|not ok|skip) ' "$out" >>"$log"
	grep -E '^(ok|not ok|skip) ' "$out" >"$out.results"
	while IFS= read -r line; do
		result "$line" "$log"
	done <"$out.results"
	count=$(wc -l <"$out.results")
	plan=$(sed -n 's/^1\.\.\([0-9][0-9]*\)$/\1/p' "$out" | head -n 1)
	if [ $rc -eq 124 ] || [ $rc -eq 137 ]; then
		verdict "not ok $name: timed out after $limit s" "$log"
	elif [ $rc -ne 0 ] && ! grep -q '^not ok ' "$out.results"; then
		verdict "not ok $name: exited with status $rc and named no failed test" "$log"
	elif [ "$count" -eq 0 ]; then
		verdict "not ok $name: printed no result" "$log"
	elif [ -n "$plan" ] && [ "$plan" -ne "$count" ]; then
		verdict "not ok $name: $count results of $plan" "$log"
	fi
	rm -f "$out" "$out.results"

	kernel_log | comm -13 "$logs/kernel.before" - >"$logs/kernel.new"
	if [ -s "$logs/kernel.new" ]; then
		cat "$logs/kernel.new" >>"$log"
		verdict "not ok $name: the kernel logged $(head -n 1 "$logs/kernel.new")" "$log"
	fi
	rm -f "$logs/kernel.before" "$logs/kernel.new"
}

run_group() {
	case $1 in
	unit) run_script unit test/unit/run ;;
	zdtm) run_script zdtm test/zdtm/run.sh ;;
	oracle) run_script oracle test/oracle/oracle.py ;;
	e2e)
		for script in test/e2e/*.py; do
			case $script in *lib.py) continue ;; esac
			run_script "e2e/$(basename "$script" .py)" "$script"
		done
		;;
	e2e/*) run_script "${1%.py}" "test/${1%.py}.py" ;;
	*) verdict "not ok $1: there is no such group of tests" - ;;
	esac
}

[ $# -gt 0 ] || set -- unit e2e oracle zdtm
for group in "$@"; do
	run_group "$group"
done

exec test/summary.sh "$logs/results" test/allowed-skips
