"""Ends a server whose parent died. Run as a program beside each server.

Its standard input is a pipe from the parent. A byte on it means that the parent stopped the server itself; the end of
the pipe without one means that the parent is gone, however it went. Then the server gets SIGTERM, time to finish its
requests, and SIGKILL, and its files are removed. PR_SET_PDEATHSIG would be shorter, but it fires when the *thread*
that started the server ends, it needs code between fork and exec, and it does not reach the stubs.

Arguments: process group, grace period in whole seconds, folder to remove, prefix of its names in /dev/shm.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the kernel's place for shared memory
POLL_S = 0.1


def remove_leftovers(folder: Path, shared_memory_prefix: str) -> None:
    """Remove the folder of a server, and the shared memory that its killed processes left behind."""
    shutil.rmtree(folder, ignore_errors=True)
    for region in SHARED_MEMORY.glob(f"{shared_memory_prefix}*"):
        region.unlink(missing_ok=True)


def group_is_alive(group: int) -> bool:
    """Whether any process of the group is there."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def main() -> None:
    """Wait for the parent, then act on its end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whoever ends the parent may signal us as well
        signal.signal(number, signal.SIG_IGN)
    group, grace_period_s, folder, prefix = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    if sys.stdin.buffer.read(1):
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(group, signal.SIGTERM)  # to Triton alone, which ends its stubs after their last request
    give_up = time.monotonic() + grace_period_s
    while group_is_alive(group) and time.monotonic() < give_up:
        time.sleep(POLL_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    remove_leftovers(folder, prefix)


if __name__ == "__main__":
    main()
