"""A network given as a list of operators, run step by step in Python: what is left of a file's program once checked.

torch.export traces it as it traces any module, with whatever batch size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources.operators import is_pure

_TRAINED = {  # arguments that say an operator works as in training
    "batch_norm": "training",
    "native_batch_norm": "training",
    "_native_batch_norm_legit": "training",
    "dropout": "train",
    "feature_dropout": "train",
    "alpha_dropout": "train",
    "feature_alpha_dropout": "train",
    "native_dropout": "train",
}

_CONVOLUTION = (
    "input", "weight", "bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups",
)  # fmt: skip
_MOST_TURNS = 1000
_BATCH = "number of pictures"
_SHAPED = {"view": "size", "_unsafe_view": "size", "reshape": "shape", "expand": "size"}


@dataclass(frozen=True)
class Value:
    """Stands for the result of an earlier step, by name."""

    name: str


@dataclass(frozen=True)
class Step:
    """One operator: what is called with which arguments (constants, Values, lists of them), and its results.

    name: of an aten operator, without its overload. turns: of a loop, whose `arguments` are the number of turns,
    whether it begins, and what is carried along: its steps, the names of the counter and of what is carried, and
    whether it goes on with the new values.

    results: names; `unpacked` takes a sequence apart. branches: of a condition, `call` being unused: the steps and
    results of either branch, the one for True first.
    """

    call: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)
    results: tuple[str, ...] = ()
    unpacked: bool = False
    branches: tuple[tuple[tuple[Step, ...], tuple[Value, ...]], ...] = ()
    name: str = ""
    turns: tuple[tuple[Step, ...], tuple[str, ...], tuple[Value, ...]] | None = None


class GraphNetwork(nn.Module):
    """`steps` in their order, from the picture named `entry` to the value named `end`.

    tensors: constants by name. Where the program was recorded with one picture and its shapes hold that 1, the number
    of pictures takes its place.
    """

    def __init__(self, steps: Sequence[Step], tensors: Mapping[str, torch.Tensor], *, entry: str, end: str) -> None:
        super().__init__()
        self.steps = _follow_batch(steps, {entry})
        self.entry, self.end = entry, end
        self.constants = {}
        for index, (name, tensor) in enumerate(tensors.items()):
            self.register_buffer(f"constant_{index}", tensor)
            self.constants[name] = f"constant_{index}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) float32 -> (N, C', H', W') float32. Raises CheckpointInvalid where a step can't be."""
        known: dict[str, Any] = {name: getattr(self, buffer) for name, buffer in self.constants.items()}
        known[self.entry], known[_BATCH] = x, x.shape[0]
        _run(self.steps, known)
        result = known[self.end]
        if not isinstance(result, torch.Tensor):
            raise CheckpointInvalid(f"The network gives a {type(result).__name__}; expected one picture.")
        return result


def aten_operator(name: str, overload: str) -> Callable[..., Any]:
    """The operator, to be called with keywords. Raises CheckpointInvalid if a ready network may not hold it."""
    if not is_pure(name):
        raise CheckpointInvalid(
            f"The network uses `aten::{name[:60]}`, which is not among the operators that are let through. Pass its "
            "state_dict if it is of a known family."
        )
    if name == "_convolution":  # what a trace holds: the same with choices of the library behind it
        return _convolution
    found = getattr(getattr(torch.ops.aten, name, None), overload or "default", None)
    if not callable(found):
        raise CheckpointInvalid(f"The network uses `aten::{name[:60]}.{overload[:60]}`, which this PyTorch has not.")
    trained = _TRAINED.get(name.rstrip("_") if name.endswith("_") else name)
    if trained is None:
        return found  # type: ignore[no-any-return]

    def call(**keywords: Any) -> Any:
        if keywords.get(trained):
            raise CheckpointInvalid(
                f"The network was saved in training mode: its `{name}` depends on chance or on the other pictures of a "
                "batch. Call .eval() on it and save it again."
            )
        return found(**keywords)

    return call


def _convolution(**keywords: Any) -> Any:
    return torch.ops.aten.convolution.default(**{key: keywords[key] for key in _CONVOLUTION})


def _follow_batch(steps: Sequence[Step], pictures: set[str]) -> tuple[Step, ...]:
    """`steps` with a leading 1 in a picture's new shape replaced; `pictures` grows by what is made of pictures."""
    lists: dict[str, Any] = {}
    changed = []
    for step in steps:
        key = _SHAPED.get(step.name, "")
        shape = step.keywords.get(key)
        written = lists.get(shape.name) if isinstance(shape, Value) else shape
        if written and _is_one(written[0], lists) and _names(step.keywords.get("self")) & pictures:
            step = replace(step, keywords={**step.keywords, key: [Value(_BATCH), *written[1:]]})  # noqa: PLW2901
        if step.branches:
            step = replace(  # noqa: PLW2901
                step, branches=tuple((_follow_batch(inside, pictures), values) for inside, values in step.branches)
            )
        if step.turns is not None:
            inside, names, values = step.turns
            if _names(list(step.arguments)) & pictures:
                pictures.update(names)
            step = replace(step, turns=(_follow_batch(inside, pictures), names, values))  # noqa: PLW2901
        if step.call is as_list:
            lists[step.results[0]] = list(step.arguments)
        elif step.call is as_constant:
            lists[step.results[0]] = step.arguments[0][0]
        read = _names(list(step.arguments)) | _names(list(step.keywords.values()))
        read |= {name for _, values in step.branches for name in _names(list(values))}
        if read & pictures:
            pictures.update(step.results)
        changed.append(step)
    return tuple(changed)


def _is_one(axis: Any, lists: Mapping[str, Any]) -> bool:
    found = lists.get(axis.name) if isinstance(axis, Value) else axis
    return type(found) is int and found == 1


def _names(argument: Any) -> set[str]:
    if isinstance(argument, Value):
        return {argument.name}
    if isinstance(argument, list | tuple):
        return {name for part in argument for name in _names(part)}
    return set()


def as_list(*values: Any) -> list[Any]:
    """A list of its arguments."""
    return list(values)


def as_constant(values: list[Any]) -> Any:
    """The one value in the list."""
    return values[0]


def _run(steps: Sequence[Step], known: dict[str, Any]) -> None:
    for step in steps:
        if step.branches:
            inside, values = step.branches[0 if _look_up(step.arguments[0], known) else 1]
            _run(inside, known)
            known.update(zip(step.results, [_look_up(value, known) for value in values], strict=True))
            continue
        if step.turns is not None:
            known.update(zip(step.results, _turn(step, known), strict=True))
            continue
        result = step.call(
            *[_look_up(value, known) for value in step.arguments],
            **{key: _look_up(value, known) for key, value in step.keywords.items()},
        )
        if step.unpacked:
            known.update(zip(step.results, result, strict=True))
        elif step.results:
            known[step.results[0]] = result


def _turn(step: Step, known: dict[str, Any]) -> list[Any]:
    assert step.turns is not None  # noqa: S101 - the caller has looked
    inside, names, values = step.turns
    turns, goes_on, *carried = [_look_up(value, known) for value in step.arguments]
    if turns > _MOST_TURNS and goes_on:
        turns = _MOST_TURNS + 1
    for turn in range(turns):
        if not goes_on:
            break
        if turn == _MOST_TURNS:
            raise CheckpointInvalid(f"The network's program turns in a loop more than {_MOST_TURNS} times.")
        known.update(zip(names, [turn, *carried], strict=True))
        _run(inside, known)
        goes_on, *carried = [_look_up(value, known) for value in values]
    return carried


def _look_up(argument: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(argument, Value):
        return known[argument.name]
    if isinstance(argument, list | tuple):
        return [_look_up(part, known) for part in argument]
    return argument


# Arithmetic on sizes, which are plain numbers.
NUMBERS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "floor_divide": operator.floordiv,
    "mod": operator.mod,
    "remainder": operator.mod,
    "neg": operator.neg,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "getitem": operator.getitem,
    "__getitem__": operator.getitem,
    "__contains__": operator.contains,
    "__not__": operator.not_,
    "__is__": operator.is_,
    "__isnot__": operator.is_not,
    "__and__": operator.and_,
    "__or__": operator.or_,
    "len": len,
    "Int": int,
    "Float": float,
    "Bool": bool,
    "IntImplicit": int,
    "ScalarImplicit": lambda value: value,
    "list": list,
}
