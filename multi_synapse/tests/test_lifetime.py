"""Processes beside a shard end in time, also where nobody asks them to."""

from __future__ import annotations

import signal
import subprocess
import sys

from .shard import CHECKOUT

BACKTRACKS = """
import re
from multi_synapse import lifetime
with lifetime.at_most(1):
    re.match("(a+)+$", "a" * 60 + "b")
"""
ENDS_IN_TIME = """
import time
from multi_synapse import lifetime
with lifetime.at_most(1):
    pass
time.sleep(2)
"""


def run(program: str) -> int:
    environment = {"PYTHONPATH": str(CHECKOUT)}
    return subprocess.run([sys.executable, "-c", program], check=False, env=environment, timeout=120).returncode


def test_a_process_ends_in_the_midst_of_work_that_never_does() -> None:
    assert run(BACKTRACKS) == -signal.SIGALRM


def test_a_process_that_has_done_its_work_goes_on() -> None:
    assert run(ENDS_IN_TIME) == 0
