"""NumPy arrays as tensors on the wire, and back."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchbridge_client.calls import check_name
from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.messages import Inferred, Parameter, Tensor, bytes_tensor, elements_of
from sketchbridge_client.timings import Timings

# KServe v2's datatypes by NumPy's names for them, except BYTES, whose elements are of any length.
_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",  # of the package ml_dtypes; NumPy itself has none
}
_DTYPES = {datatype: name for name, datatype in _DATATYPES.items() if name != "bfloat16"}
_LONGEST_SIDE = 2**31


@dataclass(frozen=True)
class Inference:
    """What a model gave back to `infer`.

    outputs: arrays by the names of the tensors, as the model shapes them; BYTES comes as an object array of bytes, BF16
    as float32. They may be read-only views of the answer: copy one to write into it. parameters: what else the model
    said.
    """

    outputs: Mapping[str, NDArray[Any]] = field(repr=False)
    model: str
    model_version: str
    request_id: str
    parameters: Mapping[str, Parameter]
    timings: Timings

    def __getitem__(self, name: str) -> NDArray[Any]:
        """The output of this name. Raises KeyError, with the names there are."""
        try:
            return self.outputs[name]
        except KeyError:
            raise KeyError(f"`{self.model}` gave no output `{name}`; there are {sorted(self.outputs)}.") from None


def tensors_of(inputs: object) -> tuple[Tensor, ...]:
    """The inputs of `infer` as tensors. Raises InvalidArgument."""
    if not isinstance(inputs, Mapping) or not inputs:
        raise InvalidArgument("`inputs` is no mapping with names of tensors and their arrays, or an empty one.")
    return tuple(_tensor(name, array) for name, array in inputs.items())


def arrays_of(inferred: Inferred) -> dict[str, NDArray[Any]]:
    """The outputs as arrays. Raises ValueError if shape, datatype and bytes do not agree."""
    return {tensor.name: _array(tensor) for tensor in inferred.outputs}


def _tensor(name: object, array: object) -> Tensor:
    name = check_name("inputs", "tensor", name)
    if not isinstance(array, (np.ndarray, np.generic)):
        raise InvalidArgument(
            f"`inputs[{name!r}]` is a {type(array).__qualname__}; expected a NumPy array, as of "
            "`numpy.asarray(x, dtype=...)`."
        )
    given = np.asarray(array)
    if given.dtype.kind in "OSU":
        return Tensor(name, "BYTES", given.shape, bytes_tensor(name, _elements(name, given)).parts)
    datatype = _DATATYPES.get(given.dtype.name)
    if datatype is None:
        raise InvalidArgument(
            f"`inputs[{name!r}]` is an array of {given.dtype}; a model takes one of {', '.join(_DATATYPES)}, or bytes."
        )
    little = given.dtype.newbyteorder("<") if given.dtype.byteorder in "<>=" else given.dtype
    return Tensor(name, datatype, given.shape, (given.astype(little, copy=False).tobytes(),))


def _elements(name: str, array: NDArray[Any]) -> list[bytes]:
    try:
        elements = [one.encode() if isinstance(one, str) else one for one in array.ravel().tolist()]
    except UnicodeEncodeError as exc:
        raise InvalidArgument(
            f"`inputs[{name!r}]` is an array with text in it that is no valid Unicode: {exc}. Mend it, or give bytes."
        ) from exc
    strange = next((one for one in elements if not isinstance(one, bytes)), None)
    if strange is not None:
        raise InvalidArgument(
            f"`inputs[{name!r}]` is an array of objects with a {type(strange).__qualname__} in it; "
            "expected bytes or text."
        )
    return elements


def _array(tensor: Tensor) -> NDArray[Any]:
    if any(not 0 <= side < _LONGEST_SIDE for side in tensor.shape):
        raise ValueError(f"`{tensor.name}` has the shape {tensor.shape}.")
    count = prod(tensor.shape)
    if tensor.datatype == "BYTES":
        elements = elements_of(tensor)
        _check_count(tensor, count, len(elements))
        array = np.empty(count, np.object_)
        array[:] = elements
    elif tensor.datatype == "BF16":
        _check_count(tensor, 2 * count, len(tensor.data))
        array = (np.frombuffer(tensor.data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif tensor.datatype in _DTYPES:
        dtype = np.dtype(_DTYPES[tensor.datatype])
        _check_count(tensor, dtype.itemsize * count, len(tensor.data))
        array = np.frombuffer(tensor.data, dtype.newbyteorder("<"))
        if sys.byteorder == "big":
            array = array.astype(dtype)
    else:
        raise ValueError(f"`{tensor.name}` is of the datatype {tensor.datatype}, which KServe v2 does not have.")
    return array.reshape(tensor.shape)


def _check_count(tensor: Tensor, expected: int, came: int) -> None:
    if came != expected:
        raise ValueError(
            f"`{tensor.name}` is {tensor.shape} {tensor.datatype} and came with {came} instead of {expected}."
        )
