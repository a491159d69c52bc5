"""Follows the pickle of a checkpoint step by step without building anything, before PyTorch reads it.

`weights_only` keeps a pickle from running code, but not from asking for memory that the file doesn't hold, or for days:
a tensor may be made from nothing but a size, and tuples of the same tuple twice are endless to hash after forty turns.
What is said of the tensors' storages is compared with the bytes that are there.
"""

from __future__ import annotations

import collections
import pickletools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from sketchbridge_export.errors import CheckpointInvalid

_MARK = object()
_TUPLES = ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_BYTES = {
    "UntypedStorage": 1, "ByteStorage": 1, "CharStorage": 1, "BoolStorage": 1, "QInt8Storage": 1, "QUInt8Storage": 1,
    "QUInt4x2Storage": 1, "QUInt2x4Storage": 1, "ShortStorage": 2, "HalfStorage": 2, "BFloat16Storage": 2,
    "IntStorage": 4, "FloatStorage": 4, "QInt32Storage": 4, "LongStorage": 8, "DoubleStorage": 8,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip
# A tensor of the pickle's own making, or bytes: of nothing, of an array of text as protocol 2 writes bytes, or refused.
_MAKES_DATA = re.compile(r"torch(\.\w+)* \w*(Tensor|Storage)|(__builtin__|builtins) bytearray|_codecs encode")
_AS_TEXT = ("latin1", "latin-1")
_MOST_REPETITIONS = 10_000_000  # values in tuples that are used again, counted each time
_MOST_STEPS = 1_000_000  # 3 s; a whole training of 3,000 tensors takes 90,000
_PICKLES_OF_OLD_FILES = 5  # magic number, version, machine, content, names of the storages


class _Unbounded(ValueError):
    """What a pickle does that no generator's does, after "`file` "."""


class _Tuple(tuple[Any, ...]):  # noqa: SLOT001 - tuples can't have slots
    """A tuple that knows how many values are in it and in the tuples inside."""

    values: int


def check_storages(path: Path, content: bytes, sizes: Mapping[str, int]) -> None:
    """Raise CheckpointInvalid unless the pickle `content` is bounded and every storage it names is there, in full.

    sizes: the bytes of each storage in the archive, by its key.
    """
    try:
        named = list(_persistent_ids(content))
    except Exception as exc:  # a broken pickle fails in any way
        raise _refusal(path, exc) from exc
    for identity in named:
        match identity:
            case ("storage", str() as kind, str() as key, str(), int() as count) if kind.split()[-1:][0] in _BYTES:
                claimed, stored = count * _BYTES[kind.split()[-1]], sizes.get(key, 0)
                if not 0 <= claimed <= stored:
                    shown = f"{claimed:,}" if 0 <= claimed < 1 << 63 else "too many"
                    raise CheckpointInvalid(
                        f"`{path}` is damaged: a tensor of {shown} bytes has {stored:,} in the file. Copy it again."
                    )
            case _:
                raise CheckpointInvalid(
                    f"`{path}` is damaged: it names a storage as PyTorch never does. Copy it again."
                )


def check_old_file(path: Path, file: IO[bytes], largest_bytes: int) -> None:
    """Raise CheckpointInvalid unless the pickles that PyTorch before 1.6 begins a file with are bounded.

    largest_bytes: of all of them together; storages follow behind. Leaves `file` at its beginning.
    """
    try:
        for _ in range(_PICKLES_OF_OLD_FILES):
            collections.deque(_persistent_ids(file), maxlen=0)
    except Exception as exc:  # as above
        raise _refusal(path, exc) from exc
    if file.tell() > largest_bytes:
        raise CheckpointInvalid(f"`{path}` describes its tensors in {file.tell():,} bytes; that is no generator's.")
    file.seek(0)


def _refusal(path: Path, exc: Exception) -> CheckpointInvalid:
    if isinstance(exc, _Unbounded):
        return CheckpointInvalid(f"`{path}` {exc}; that is no generator's. Save the generator's state_dict alone.")
    return CheckpointInvalid(f"`{path}` is damaged, or not a checkpoint. Copy it again.")


def _persistent_ids(content: bytes | IO[bytes]) -> Iterator[Any]:
    """What a pickle hands to its reader as names of storages: tuples of texts, numbers, and classes as text.

    Raises _Unbounded if it makes data or tuples that the file doesn't hold, or never comes to an end.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    repeated = 0
    for steps, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if steps > _MOST_STEPS:
            raise _Unbounded(f"describes its tensors in more than {_MOST_STEPS:,} steps")
        if name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET", "DUP"):
            stack.append(stack[-1] if name == "DUP" else memo[argument])
            repeated += _count(stack[-1])
            if repeated > _MOST_REPETITIONS:
                raise _Unbounded("holds tuples of tuples of the same values, over and over")
        elif name in ("PERSID", "BINPERSID"):
            yield argument if name == "PERSID" else stack.pop()
            stack.append(None)
        else:
            _take_step(stack, opcode, argument)


def _tuple(values: list[Any]) -> _Tuple:
    result = _Tuple(values)
    result.values = sum(map(_count, values)) + 1
    return result


def _count(value: object) -> int:
    return value.values if isinstance(value, _Tuple) else 1


def _check_call(function: object, arguments: object) -> None:
    """Raise _Unbounded if the pickle makes data of a size it merely says."""
    if not isinstance(function, str) or not _MAKES_DATA.fullmatch(function) or arguments == ():
        return
    match arguments:
        case (str(), str() as encoding) if encoding in _AS_TEXT and "torch" not in function:
            return
    raise _Unbounded(f"makes data of its own with `{function.replace(' ', '.')[:80]}`")


def _take_step(stack: list[Any], opcode: pickletools.OpcodeInfo, argument: Any) -> None:
    """Any other step; what is not known here takes and gives as many values as the description of pickles says."""
    if opcode.name == "MARK":
        stack.append(_MARK)
        return
    if opcode.name == "TUPLE":
        stack.append(_tuple(_pop_to_mark(stack)))
        return
    if opcode.name in _TUPLES:
        count = _TUPLES.index(opcode.name)
        stack[len(stack) - count :] = [_tuple(stack[len(stack) - count :])]
        return
    if opcode.name in ("REDUCE", "NEWOBJ"):
        _check_call(stack[-2], stack[-1])
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
