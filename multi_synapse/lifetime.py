"""For processes beside a shard: none goes on for long when the shard has been killed, whatever it is at."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

_PR_SET_PDEATHSIG = 1


def end_with(parent: int) -> None:
    """Has the kernel kill this process at the moment its parent ends. Only for one that the parent's main thread has forked: the
    kernel takes the end of that thread for the parent's."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_PDEATHSIG")
    # It ended before that.
    if os.getppid() != parent:
        os._exit(0)


@contextlib.contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Has the kernel kill this process if the work in it takes longer, also in code that never looks for signals."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
