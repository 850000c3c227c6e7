#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# What 'make demo-migrate' runs; all it needs is built by then.
#
#   MIGRATE_MB    size of the shared memory in MiB, at least 16 (1024)
#   MIGRATE_RUNS  migrations of each kind, at least 1 (3)
#   MIGRATE_DIR   where images are; by default in memory, if there is room

set -eu
top=$(cd "$(dirname "$0")/.." && pwd)

if [ "$(id -u)" -ne 0 ]; then
	echo "demo-migrate: checkpoint, restore and namespaces need root; run it as root" >&2
	exit 1
fi
command -v ip >/dev/null || {
	echo "demo-migrate: there is no 'ip': apt-get install iproute2" >&2
	exit 1
}
exec /usr/bin/python3 "$top/demo/migrate.py"
