#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# What the plugin takes for granted of a kernel, and its modules, on this one;
# then it all together: what is right while mappings change, and random programs
# that must see the same after a lazy restore as after an eager one. FULL=1: all
# end-to-end tests.
#
# kernel: patched
# timeout: 1800

. kernel/test/guest/parts.inc

LSHM_SLOW=5
export LSHM_SLOW

# Not: what has to be seen within 2 ms. Two emulated processors, that others may be
# using as well, are not always in time, and then the answer is "unknown".
modules="kernel_facts uffd_io fill_huge proc_scan guard eligible extents page_map vma_table
	removal/dontneed_keeps removal/remove_drops removal/length_is_rounded removal/one_after_the_other
	removal/one_call_several_events removal/forked_child_keeps removal/forked_child_drops
	removal/faults_pending_first_keeps removal/faults_pending_first_drops removal/looks_again"

# one for each kind of call in the window
programs="same_address_remove fork_private remap_after_dontneed vfork_remove past_the_end"

# shellcheck disable=SC2317 # part() calls it
run_programs() {
	set --
	for p in $programs; do
		set -- "$@" --program "test/oracle/programs/$p.prog"
	done
	out=$(test/oracle/oracle.py --no-shrink "$@" 2>&1)
	rc=$?
	echo "$out"
	echo 1..1
	if [ "$rc" -eq 0 ] && echo "$out" | grep -q ' [1-9][0-9]* faults'; then
		echo "ok guest/oracle"
	else
		echo "not ok guest/oracle: status $rc: $(echo "$out" | tail -n 1)"
	fi
}

{
	# shellcheck disable=SC2086 # a list
	part test/unit/run -n $modules
	if [ -n "${FULL:-}" ]; then
		for t in restore bad_images protocol mappings leftovers huge_pages daemon_killed; do
			part "test/e2e/$t.py"
		done
		part test/oracle/oracle.py
	else
		part test/e2e/restore.py contents_and_counters dump_in_window_refused switched_off check_feature
		part run_programs
	fi
} | whole
rc=$?
cp -r build/test-logs "$RIG_KEEP"
exit $rc
