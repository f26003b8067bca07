"""Become another program that dies with its parent: ``python exec_child.py <parent's pid> <program> <arguments>``."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2), Linux; it outlives exec

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(sys.argv[1]):  # it died before the call above
            sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 -- no shell is wanted
