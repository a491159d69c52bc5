"""Watch the Python processes of a server's models.

Triton does not restart a stub that died, and both its readiness probes go on saying yes (seen with 2.51): every call
to that model fails until the server is restarted. The kernel knows better.
"""

from __future__ import annotations

from pathlib import Path

from sketchbridge_server.installation import STUB

PROC = Path("/proc")
INSTANCE_ARGUMENT = -2  # the command line of a stub ends with the instance's name and the backend's folder


def find_stubs(server_pid: int) -> dict[int, str]:
    """Process id -> instance name (as `decode_0`) of each stub that the server has running now."""
    stubs = {}
    for folder in PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        state = _state_and_parent(folder)
        if state is None or state[1] != server_pid:
            continue
        arguments = _command_line(folder)
        if len(arguments) > -INSTANCE_ARGUMENT and arguments[0].endswith(STUB):
            stubs[int(folder.name)] = arguments[INSTANCE_ARGUMENT]
    return stubs


def dead_stubs(stubs: dict[int, str]) -> list[str]:
    """The instance names of those that have ended since, in order."""
    dead = []
    for pid, instance in stubs.items():
        state = _state_and_parent(PROC / str(pid))
        if state is None or state[0] == "Z":
            dead.append(instance)
    return sorted(dead)


def _state_and_parent(folder: Path) -> tuple[str, int] | None:
    try:
        stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it has just ended
        return None
    state, parent = stat.rpartition(")")[2].split()[:2]  # a program's name may hold spaces and brackets
    return state, int(parent)


def _command_line(folder: Path) -> list[str]:
    try:
        return (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []
