"""What the process answers its caller with."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """DONE. FAILED: the work failed. WRONG_CALL: fix the call. INTERRUPTED: Ctrl-C, 128 + SIGINT as shells count.

    TERMINATED: 128 + SIGTERM, for commands that do not stop cleanly by it as `serve` does.
    """

    DONE = 0
    FAILED = 1
    WRONG_CALL = 2
    INTERRUPTED = 130
    TERMINATED = 143
