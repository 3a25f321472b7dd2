"""What a time was taken on."""

import os
import platform
from pathlib import Path

from onnxprune.runtime.session import RUNTIME_VERSION
from onnxprune.runtime.threads import cores

__all__ = ["identity", "machine"]


def machine(threads: int, provider: str) -> dict[str, str]:
    """Say where the times were taken; the load is the one before the measurement adds its own."""
    load = " ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else ""
    return {
        **identity(threads, provider),
        "cores": str(cores()),
        "load average": load or "unknown",
        "python": platform.python_version(),
        "os": platform.platform(),
    }


def identity(threads: int, provider: str) -> dict[str, str]:
    """Say what decides how long operators take: processor, runtime, provider, threads."""
    return {
        "cpu": _cpu_model(),
        "onnxruntime": RUNTIME_VERSION,
        "provider": provider,
        "threads": str(threads),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "unknown"
