"""Compares what an archive's pickle says of its tensors' storages with the bytes that are there.

PyTorch's readers take the number of values from the pickle and don't look how many the archive holds: what is missing
is read from whatever lies behind it in memory. The pickle is followed here step by step without building anything.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sketchbridge_export.errors import CheckpointInvalid

_MARK = object()
_BYTES = {
    "UntypedStorage": 1, "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "QInt8Storage": 1, "QUInt8Storage": 1,
    "QUInt4x2Storage": 1, "QUInt2x4Storage": 1, "ShortStorage": 2, "HalfStorage": 2, "BFloat16Storage": 2,
    "IntStorage": 4, "FloatStorage": 4, "QInt32Storage": 4, "LongStorage": 8, "DoubleStorage": 8,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip


def check_storages(path: Path, content: bytes, sizes: Mapping[str, int]) -> None:
    """Raise CheckpointInvalid unless every storage that the pickle `content` names is there, in full.

    sizes: the bytes of each storage in the archive, by its key.
    """
    try:
        named = list(_persistent_ids(content))
    except Exception as exc:  # a broken pickle fails in any way
        raise CheckpointInvalid(f"`{path}` is damaged, or not a checkpoint. Copy it again.") from exc
    for identity in named:
        match identity:
            case ("storage", str() as kind, str() as key, str(), int() as count) if kind.split()[-1] in _BYTES:
                claimed = count * _BYTES[kind.split()[-1]]
                if count < 0 or claimed > sizes.get(key, 0):
                    stored = sizes.get(key, 0)
                    raise CheckpointInvalid(
                        f"`{path}` is damaged: a tensor of {claimed:,} bytes has {stored:,} in the file. Copy it again."
                    )
            case _:
                raise CheckpointInvalid(f"`{path}` is damaged: it names a storage {str(identity)[:80]}. Copy it again.")


def _persistent_ids(content: bytes) -> Iterator[Any]:
    """What a pickle hands to its reader as names of storages: tuples of texts, numbers, and classes as text."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif name == "PERSID":
            yield argument
            stack.append(None)
        elif name == "BINPERSID":
            yield stack.pop()
            stack.append(None)
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(_pop_to_mark(stack)))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            _take_step(stack, opcode, argument)


def _take_step(stack: list[Any], opcode: pickletools.OpcodeInfo, argument: Any) -> None:
    """Any other step: it takes and gives as many values as the description of pickles says."""
    before = list(opcode.stack_before)
    if pickletools.markobject in before:
        _pop_to_mark(stack)
        before = before[: before.index(pickletools.markobject)]
    elif opcode.name == "POP" and stack[-1] is _MARK:
        before = [before[0]]
    kept = stack[len(stack) - len(before)] if before and len(opcode.stack_after) == 1 else None
    for _ in before:
        stack.pop()
    if opcode.name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD", "ADDITEMS"):
        stack.append(kept)
    elif opcode.stack_after:
        plain = isinstance(argument, str | int) and not isinstance(argument, bool)
        stack.append(argument if plain else None)


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    taken = []
    while (value := stack.pop()) is not _MARK:
        taken.append(value)
    return taken[::-1]
