#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Without minor faults for shmem: everything is restored before resume, and one
# line says so. FULL=1: with all of the project's zdtm tests.
#
# kernel: plain
# timeout: 3600

. kernel/test/guest/parts.inc

LSHM_SLOW=5 LSHM_MODE=fallback
export LSHM_SLOW LSHM_MODE

# private memory as well; huge pages
tests="lshm_mixed lshm_huge_kinds"
[ -z "${FULL:-}" ] || tests=$(test/zdtm/run.sh -l)

{
	part kernel/test/guest/plain_kernel.py
	# shellcheck disable=SC2086 # a list
	part test/zdtm/run.sh -n -j 2 $tests
} | whole
rc=$?
cp -r build/test-logs "$RIG_KEEP"
exit $rc
