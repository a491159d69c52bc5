"""A generator as `model.onnx`, for ONNX Runtime and for everything that is built from ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from sketchbridge_export.errors import CheckpointInvalid, OptionInvalid, RepositoryError
from sketchbridge_export.families.layers import fold_norms
from sketchbridge_export.interface import INPUT_NAME, OUTPUT_NAME, GeneratorInterface
from sketchbridge_preprocess import INTERFACE_SIDE_PX

KIND = "onnx"
FILE_NAME = "model.onnx"
# The exporter writes 18 itself; anything newer is a conversion of its answer with nothing in it that a U-Net needs.
# Every ONNX Runtime, OpenVINO and TensorRT of the last years reads 18.
OPSET = 18

Weights = Literal["fp32", "fp16"]
WEIGHTS: tuple[Weights, ...] = ("fp32", "fp16")

_LARGEST_WEIGHTS_BYTES = 2 * 1024**3 - 16 * 1024**2  # protobuf ends at 2 GiB, and the graph takes some of it
_LARGEST_FP16 = 65504.0
_SMALLEST_HALVED = 1024  # values; below that a Cast costs more than the halved file is worth


def write_onnx(interface: GeneratorInterface, path: Path, *, weights: Weights = "fp32") -> None:
    """Write `interface` to `path` as a self-contained ONNX file.

    Input `sketch` and output `photo` are (batch, 256, 256, 3) uint8, `batch` being dynamic. weights: "fp16" stores the
    convolutions' weights as float16 with a Cast to float32 behind each. That halves the file; ONNX Runtime casts them
    back at load and computes in float32 either way. Raises OptionInvalid if a weight is too large for float16,
    CheckpointInvalid if all of them are too large for one file, and RepositoryError if it can't be written.
    """
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in interface.state_dict().values())
    if size_bytes > _LARGEST_WEIGHTS_BYTES:
        raise CheckpointInvalid(
            f"The network has {size_bytes:,} bytes of weights; an ONNX file holds {_LARGEST_WEIGHTS_BYTES:,} at most."
        )
    # Two pictures: a batch of one would be taken for a constant.
    example = torch.zeros(2, INTERFACE_SIDE_PX, INTERFACE_SIDE_PX, 3, dtype=torch.uint8)
    with _quiet(), _interrupts_pass():
        program = torch.onnx.export(
            fold_norms(interface),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
        )
    if program is None:
        raise AssertionError("torch.onnx.export returned no program")
    model = program.model_proto
    strip_traces(model)
    if weights == "fp16":
        halve_weights(model)
    onnx.checker.check_model(model, full_check=True)  # infers every shape again and compares
    try:
        onnx.save_model(model, path)
    except OSError as exc:
        raise RepositoryError(f"`{path}` can't be written: {exc.strerror}.") from exc


@contextmanager
def _interrupts_pass() -> Iterator[None]:
    """Raise Ctrl-C and its like again where torch took it for the failure of one of its attempts."""
    try:
        yield
    except Exception as exc:
        found: BaseException | None = exc
        while found is not None:
            if not isinstance(found, Exception):
                raise found from None
            found = found.__cause__ or found.__context__
        raise


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns about its own internals; none of it is about the caller's network."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def strip_traces(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes: stack traces with this machine's paths, half the text of the file."""
    del model.metadata_props[:]
    model.doc_string = ""
    for part in (model.graph, *model.graph.node, *model.graph.initializer, *model.graph.value_info, *model.functions):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]


def halve_weights(model: onnx.ModelProto) -> None:
    """Store large float32 weights as float16, in place. Raises OptionInvalid if one is too large for it."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALLEST_HALVED:
            continue
        values = numpy_helper.to_array(tensor)
        largest = float(np.abs(values).max())
        if largest > _LARGEST_FP16:
            raise OptionInvalid(
                f"`{tensor.name}` holds {largest:.3g}; float16 ends at {_LARGEST_FP16:.0f}. Export with fp32 weights."
            )
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_fp16"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_fp16"], [name], f"{name}_cast", to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
