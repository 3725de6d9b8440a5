"""For a container, whose first process no signal can end that it does not ask for: the shard is its child."""

from __future__ import annotations

import os
import signal


def become_child_of_init() -> None:
    """In a container's first process: goes on in a child, while this one passes signals on and ends as the child does."""
    if os.getpid() != 1:
        return
    child = os.fork()
    if child == 0:
        return
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    while True:
        # Also orphans, which are given to the first process.
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
