#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The project's zdtm tests: some, or with FULL=1 all of them. What is lazy is
# checked against their .expect files. A test leaves out what this kernel does
# not have, and says so in its output.
#
# kernel: patched
# timeout: 3600

LSHM_SLOW=5
# A fault takes many times longer here than on the machine the tests were made for
LSHM_DISK_MBPS=30
export LSHM_SLOW LSHM_DISK_MBPS

# Anonymous, memfd, private, huge, with a door, SysV; several tasks, fork(), what
# unmaps, moves, drops; swap; dump again.
tests="lshm_sysv lshm_memfd lshm_private lshm_huge_change lshm_fd_open lshm_fork lshm_remap_dup lshm_remove lshm_swap lshm_redump"

# io_uring of this kernel does not wait for a userfaultfd when buffers are
# registered, in private memory neither: EFAULT.
not_here=lshm_uring

. kernel/test/guest/parts.inc

all() {
	test/zdtm/run.sh -l | grep -vxF "$not_here"
}

# Two tests with huge pages at the same time change their number under each other.
{
	if [ -n "${FULL:-}" ]; then
		# shellcheck disable=SC2046 # a list
		part test/zdtm/run.sh -n -j 2 $(all | grep -v huge)
		# shellcheck disable=SC2046 # a list
		part test/zdtm/run.sh -n $(all | grep huge)
		echo 1..1
		echo "skip zdtm/$not_here: registering buffers in memory that is not there is EFAULT on this kernel"
	else
		# shellcheck disable=SC2086 # a list
		part test/zdtm/run.sh -n -j 2 $tests
	fi
} | whole
rc=$?
cp -r build/test-logs "$RIG_KEEP"
exit $rc
