"""One line that says what a figure was measured on: no figure means anything without it."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path


def describe_machine() -> str:
    """Processor, cores this process may use, Python, ONNX Runtime, and the date in UTC."""
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    cores = len(os.sched_getaffinity(0))
    runtime = version("onnxruntime")
    return f"{_processor()}, {cores} cores, Python {platform.python_version()}, ONNX Runtime {runtime}, {date}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
