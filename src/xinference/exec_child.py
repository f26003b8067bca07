"""Executes a program that ends with its parent: ``python exec_child.py <parent's pid> <program> <arguments>``."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2), Linux; the setting survives exec

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(sys.argv[1]):  # the parent died before the call above
            sys.exit(1)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 -- it starts no shell
