"""`python -m xpubench.process.bound_to_parent PID COMMAND...`: becomes the command, which the kernel kills
when the process PID, its parent, ends in any way.

Linux keeps this setting of a process over execve, so it also holds for programs that know nothing of it, such
as mpirun.
"""

import ctypes
import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def main(parent: str, *command: str) -> NoReturn:
    """Raises OSError where the command cannot be started."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have ended before the kernel was asked.
    if os.getppid() != int(parent):
        sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
