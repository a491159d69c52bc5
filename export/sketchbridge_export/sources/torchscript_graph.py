"""The graph of a loaded TorchScript program as a list of operators, which torch.export can trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources.graph_network import (
    NUMBERS,
    GraphNetwork,
    Step,
    Value,
    as_constant,
    as_list,
    aten_operator,
)
from sketchbridge_export.sources.operators import is_pure

_DEEPEST_PROGRAM = 60  # conditions within conditions
# As c10 numbers them, which is how a program writes them.
_TYPES = {
    0: torch.uint8, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.int64, 5: torch.float16, 6: torch.float32,
    7: torch.float64, 11: torch.bool, 15: torch.bfloat16,
}  # fmt: skip
_MEMORY_FORMATS = {0: torch.contiguous_format, 1: torch.preserve_format, 2: torch.channels_last}


def rebuild_program(graph: Any) -> GraphNetwork:
    """The network of a frozen module's graph.

    Raises CheckpointInvalid if it is in training mode, holds operators that are not on the list, or does not take and
    give one tensor.
    """
    inputs = list(graph.inputs())
    outputs = list(graph.outputs())
    pictures = [value for value in inputs if value.type().kind() == "TensorType"]
    if len(pictures) != 1 or len(outputs) != 1 or len(inputs) > 2:
        raise CheckpointInvalid(
            f"The network takes {len(pictures)} tensors and gives {len(outputs)}; a generator takes and gives one."
        )
    tensors: dict[str, torch.Tensor] = {}
    steps = _read_steps(graph.nodes(), tensors, 0)
    return GraphNetwork(steps, tensors, entry=pictures[0].debugName(), end=outputs[0].debugName())


def _read_steps(nodes: Any, tensors: dict[str, torch.Tensor], depth: int) -> tuple[Step, ...]:
    if depth > _DEEPEST_PROGRAM:
        raise CheckpointInvalid("The network's conditions are nested too deep. Save it with torch.jit.trace.")
    steps = []
    for node in nodes:
        kind = node.kind()
        arguments = tuple(Value(value.debugName()) for value in node.inputs())
        results = tuple(value.debugName() for value in node.outputs())
        if kind == "prim::Constant":
            value = _constant(node)
            if isinstance(value, torch.Tensor):
                tensors[results[0]] = value
            else:
                steps.append(Step(as_constant, ([value],), {}, results))
        elif kind == "prim::If":
            branches = tuple(
                (
                    _read_steps(block.nodes(), tensors, depth + 1),
                    tuple(Value(value.debugName()) for value in block.outputs()),
                )
                for block in node.blocks()
            )
            steps.append(Step(bool, arguments, {}, results, branches=branches))
        elif kind == "prim::Loop":
            (block,) = node.blocks()
            turns = (
                _read_steps(block.nodes(), tensors, depth + 1),
                tuple(value.debugName() for value in block.inputs()),
                tuple(Value(value.debugName()) for value in block.outputs()),
            )
            steps.append(Step(bool, arguments, {}, results, turns=turns))
        elif kind in ("prim::ListUnpack", "prim::TupleUnpack"):
            steps.append(Step(list, arguments, {}, results, unpacked=True))
        elif kind in _PRIMITIVES:
            steps.append(Step(_PRIMITIVES[kind], arguments, {}, results))
        elif kind.startswith("aten::"):
            steps.append(_aten_step(node, kind.partition("::")[2], arguments, results))
        else:
            raise _stray(kind)
    return tuple(steps)


def _constant(node: Any) -> Any:
    value = node.output().toIValue()
    if isinstance(value, torch.device):
        return torch.device("cpu")
    if not isinstance(value, torch.Tensor):
        return value
    whole_number = value.dim() == 0 and value.dtype == torch.int64  # a trace writes its arithmetic on sizes so
    return int(value) if whole_number else value.detach()


def _stray(kind: str) -> CheckpointInvalid:
    if kind in ("prim::GetAttr", "prim::SetAttr"):  # all that is constant has been put into the graph
        return CheckpointInvalid(
            "The network was saved in training mode: it changes its own statistics. Call .eval() on it and save it "
            "again."
        )
    return CheckpointInvalid(
        f"The network's program holds `{kind[:60]}`, which is not let through. Save it with torch.jit.trace."
    )


def _append(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


def _aten_step(node: Any, name: str, arguments: tuple[Value, ...], results: tuple[str, ...]) -> Step:
    if name in _SIZES:
        return Step(_SIZES[name], arguments, {}, results)
    schema = torch._C.parse_schema(node.schema())  # noqa: SLF001 - there is no public way
    keywords = {argument.name: value for argument, value in zip(schema.arguments, arguments, strict=False)}
    if is_pure(name):
        call = _with_types(aten_operator(name, schema.overload_name))
    elif name in NUMBERS:
        call = _refuse_tensors
    else:
        aten_operator(name, schema.overload_name)  # raises
        raise AssertionError(name)
    return Step(_on_numbers(name, call), (), keywords, results, unpacked=len(results) > 1, name=name)


def _on_numbers(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, or plain arithmetic where no tensor is among the arguments: sizes stay numbers."""
    plain = NUMBERS.get(name)

    def either(**keywords: Any) -> Any:
        if plain is None or any(isinstance(value, torch.Tensor) for value in keywords.values()):
            return call(**keywords)
        return plain(*[value for key, value in keywords.items() if key not in ("alpha", "rounding_mode")])

    return either


def _with_types(call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, with types, layouts and formats given as PyTorch's own rather than as numbers."""

    def typed(**keywords: Any) -> Any:
        for key, table in (("dtype", _TYPES), ("memory_format", _MEMORY_FORMATS), ("layout", {0: torch.strided})):
            if type(keywords.get(key)) is int:
                keywords[key] = table[keywords[key]]
        return call(**keywords)

    return typed


def _refuse_tensors(**_: Any) -> Any:
    raise CheckpointInvalid("The network computes a size from a picture's content, which can't be exported.")


def _size(tensor: torch.Tensor, axis: int | None = None) -> Any:
    return list(tensor.shape) if axis is None else tensor.shape[axis]


def _raise(*_: Any) -> Any:
    raise CheckpointInvalid("The network refuses the picture: its program raises an error.")


def _same(value: Any, *_: Any) -> Any:
    return value


_SIZES: dict[str, Callable[..., Any]] = {
    "__range_length": lambda begin, end, step: len(range(begin, end, step)),
    "__derive_index": lambda index, begin, step: begin + index * step,
    "size": _size,
    "dim": lambda tensor: tensor.dim(),
    "numel": lambda tensor: tensor.numel(),
    "len": len,
    "append": _append,
    "format": lambda *_: "",
    "warn": lambda *_: None,
    "is_floating_point": lambda tensor: tensor.is_floating_point(),
    "Int": int,
    "Float": float,
    "Bool": bool,
    "IntImplicit": int,
    "FloatImplicit": float,
    "ScalarImplicit": _same,
}
_PRIMITIVES: dict[str, Callable[..., Any]] = {
    "prim::ListConstruct": as_list,
    "prim::TupleConstruct": as_list,
    "prim::RaiseException": _raise,
    "prim::NumToTensor": _same,
    "prim::unchecked_cast": _same,
    "prim::Uninitialized": lambda: None,
    "prim::is_cuda": lambda _: False,
    "prim::dtype": lambda tensor: tensor.dtype,
    "prim::device": lambda _: torch.device("cpu"),
    "prim::min": min,
    "prim::max": max,
    "prim::Print": lambda *_: None,
}
