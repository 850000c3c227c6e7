#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Build what the guest's tests run: a compiler takes minutes there. CRIU, the
# plugin and the programs of test/e2e are the Makefile's.

set -eu
cd "$(dirname "$0")/../.."
mkdir -p build/test-logs

test/unit/run -b
test/zdtm/run.sh -b
LSHM_MODE=fallback test/zdtm/run.sh -b
# criu-uid runs this of CRIU's own
{
	make -C build/criu/test/zdtm/lib &&
		make -C build/criu/test/zdtm/transition shmem
} >build/test-logs/kernel-build.log 2>&1 || {
	tail -n 20 build/test-logs/kernel-build.log >&2
	exit 1
}
