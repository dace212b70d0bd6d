"""Becomes another program that the kernel ends with its parent: `python -IS die_with_parent.py PARENT_PID PROGRAM …`.

Run by `process.py` as a program of its own: asking the kernel between fork and exec instead can hang a parent that has
threads for ever, since the child waits for locks that only those threads would release.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask, look whether the parent was faster, become the program."""
    parent, *argv = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            raise SystemExit(128 + signal.SIGTERM)
    os.execvp(argv[0], argv)  # noqa: S606  # the supervisor's own command


if __name__ == "__main__":
    main()
