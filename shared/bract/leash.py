"""`python -m bract.leash PARENT PROGRAM …`: run a program that dies with the process that started it.

On Linux the kernel sends SIGKILL when the parent ends, however it ends (prctl(2), PR_SET_PDEATHSIG). Elsewhere this process
stays in between and watches.
"""

import ctypes
import os
import platform
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> int:
    """Become the program, on the leash of process `argv[0]`."""
    parent, program = int(argv[0]), argv[1:]
    if platform.system() == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return 1  # it ended before the leash was on
        os.execvp(program[0], program)  # noqa: S606
    child = subprocess.Popen(program)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(0.5)
    return child.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
