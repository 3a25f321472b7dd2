"""The command line in a process of its own, and what the system counts for it."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spent:
    """Seconds by the wall and by the processor, and GiB of memory at most."""

    wall: float
    cpu: float
    memory: float


def command(arguments: Sequence[str]) -> Spent | None:
    """Run onnxprune; None where it fails."""
    begun = time.perf_counter()
    started = subprocess.Popen([sys.executable, "-m", "onnxprune", *arguments])
    _, status, used = os.wait4(started.pid, 0)
    wall = time.perf_counter() - begun
    return None if status else Spent(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)
