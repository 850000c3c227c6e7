# SPDX-License-Identifier: GPL-2.0-only
"""Shared memory images of the test that zdtm.py is running, for its hooks."""

import glob
import os
import sys

sys.path.insert(0, os.getcwd())
import pycriu  # noqa: E402

PAGE = os.sysconf("SC_PAGE_SIZE")


def image_dir(hook):
    """Directory of the latest dump; hooks run in the directory of zdtm.py."""
    name = os.path.basename(hook)[: -len(".hook")]
    top = os.path.join("dump/zdtm/static", name, os.environ["ZDTM_TEST_PID"])
    return os.path.join(top, str(latest(top)))


def load(path):
    with open(path, "rb") as f:
        return pycriu.images.load(f)


def store(path, img):
    with open(path, "wb") as f:
        pycriu.images.dump(img, f)


def shmem_pagemaps(dirname):
    return sorted(glob.glob(os.path.join(dirname, "pagemap-shmem-*.img")))


def latest(top):
    """The number of the latest dump below @top."""
    return max(int(d) for d in os.listdir(top) if d.isdigit())


def pages_path(dirname, pagemap):
    return os.path.join(dirname, "pages-%d.img" % pagemap["entries"][0]["pages_id"])
