#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# What 'make demo' runs; all it needs is built by then.
#
#   DEMO_MB    size of the shared memory in MiB (1024)
#   DEMO_RUNS  restores of each kind, at least 1 (3)

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)

if [ "$(id -u)" -ne 0 ]; then
	echo "demo: checkpoint and restore need root here; run it as root" >&2
	exit 1
fi
exec /usr/bin/python3 "$top/demo/demo.py"
