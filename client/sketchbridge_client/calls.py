"""What each verb sends and how its answer is read: no I/O, no protocol, so every client shares it."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sketchbridge_client.errors import InvalidArgument, ResponseInvalid
from sketchbridge_client.formats import FORMATS, OutputFormat, format_of_bytes
from sketchbridge_client.messages import Infer, Inferred, Parameter, Tensor, bytes_tensor, elements_of
from sketchbridge_client.models import PHOTO, REPAINTED, SKETCH, ModelKind
from sketchbridge_client.pictures import Picture, Roundtrip
from sketchbridge_client.timings import TIMINGS, Timings

Fit = Literal["letterbox", "crop", "stretch"]
Normalise = Literal["auto", "off"]

SKETCH_MODEL = "sketch"
ROUNDTRIP_SUFFIX = "_roundtrip"

# Triton keeps these request parameters for itself. Source: its parameters extension of the KServe v2 protocol.
_RESERVED = frozenset({"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"})
_RESERVED_PREFIXES = ("triton_", "binary_data_")
_INT64 = range(-(2**63), 2**63)


@dataclass(slots=True)
class Call:
    """One verb on one model: which input its pictures go to, and which outputs are wanted.

    wanted: the kind of model this call is for. parameters: request parameters, as the model takes them.
    """

    verb: str
    model: str
    wanted: ModelKind
    input_name: str
    outputs: tuple[str, ...]
    parameters: Mapping[str, Parameter]


@dataclass(slots=True)
class Answer:
    """What one picture was answered with: the bytes of each output, who made them, and how long it took."""

    call: Call
    outputs: Mapping[str, bytes] = field(repr=False)
    model: str
    model_version: str
    request_id: str
    timings: Timings


def paint_call(
    *,
    model: str,
    fit: Fit | None,
    normalise: Normalise | None,
    output_format: OutputFormat | None,
    quality: int | None,
) -> Call:
    """The request of `paint`. Raises InvalidArgument."""
    parameters = _parameters(fit=fit, normalise=normalise, output_format=output_format, quality=quality)
    check_model(model)
    return Call("paint", model, ModelKind.PAINTER, SKETCH, (PHOTO,), parameters)


def sketch_call(
    *,
    method: str | None,
    output_format: OutputFormat | None,
    quality: int | None,
    parameters: Mapping[str, Parameter],
) -> Call:
    """The request of `sketch`. Raises InvalidArgument."""
    sent = _parameters(method=method, output_format=output_format, quality=quality, **parameters)
    return Call("sketch", SKETCH_MODEL, ModelKind.SKETCHER, PHOTO, (SKETCH,), sent)


def roundtrip_call(
    *,
    model: str,
    method: str | None,
    fit: Fit | None,
    normalise: Normalise | None,
    output_format: OutputFormat | None,
    quality: int | None,
    parameters: Mapping[str, Parameter],
) -> Call:
    """The request of `roundtrip`, for the model that goes both ways beside the painter `model`.

    Raises InvalidArgument.
    """
    sent = _parameters(
        method=method, fit=fit, normalise=normalise, output_format=output_format, quality=quality, **parameters
    )
    check_model(model)
    outputs = (SKETCH, REPAINTED)
    return Call("roundtrip", f"{model}{ROUNDTRIP_SUFFIX}", ModelKind.ROUNDTRIP, PHOTO, outputs, sent)


def painted(answer: Answer) -> Picture:
    """The answer to a `paint_call`. Raises ResponseInvalid."""
    return _picture(answer, PHOTO)


def sketched(answer: Answer) -> Picture:
    """The answer to a `sketch_call`. Raises ResponseInvalid."""
    return _picture(answer, SKETCH)


def there_and_back(answer: Answer) -> Roundtrip:
    """The answer to a `roundtrip_call`. Raises ResponseInvalid."""
    return Roundtrip(sketch=_picture(answer, SKETCH), photo=_picture(answer, REPAINTED))


def infer_request(call: Call, pictures: list[bytes], request_id: str, *, with_timings: bool) -> Infer:
    """The request that has these pictures answered, all in one batch."""
    tensor = bytes_tensor(call.input_name, pictures)  # (N, 1)
    outputs = (*call.outputs, TIMINGS) if with_timings else call.outputs
    return Infer(call.model, "", (tensor,), outputs, call.parameters, request_id)


def read_answers(call: Call, inferred: Inferred, count: int, request_id: str, timings: Timings) -> list[Answer]:
    """What each of the `count` pictures of a request was answered with, in their order. Raises ResponseInvalid."""
    try:
        rows = {tensor.name: _rows(tensor, count) for tensor in inferred.outputs if tensor.name != TIMINGS}
    except ValueError as exc:
        raise ResponseInvalid(
            f"The answer of `{call.model}` cannot be read: {exc}", model=call.model, request_id=request_id
        ) from exc
    return [
        Answer(
            call=call,
            outputs={name: elements[row] for name, elements in rows.items()},
            model=inferred.model or call.model,
            model_version=inferred.version,
            request_id=request_id,
            timings=timings,
        )
        for row in range(count)
    ]


def check_model(model: object) -> str:
    """The name of a model. Raises InvalidArgument."""
    if not isinstance(model, str) or not model:
        raise InvalidArgument(f'`model` is {model!r}; expected the name of a model, such as "shoes".')
    check_text("model", model)
    return model


def check_text(name: str, text: str) -> None:
    """Raise InvalidArgument for text that no protocol could carry."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:  # a lone surrogate, as a command line with bytes that are no UTF-8 gives
        raise InvalidArgument(f"`{name}` is {text!r}, which is no valid Unicode text.") from exc


def check_name(argument: str, kind: str, name: object) -> str:
    """The name of what the mapping `argument` holds, a tensor or a parameter. Raises InvalidArgument."""
    if not isinstance(name, str) or not name:
        raise InvalidArgument(f"`{argument}` names a {kind} {name!r}; expected the name that the model gives it.")
    try:
        name.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArgument(f"`{argument}` names a {kind} {name!r}, which is no valid Unicode text.") from exc
    return name


def check_parameter(name: object, value: object) -> Parameter:
    """A request parameter as it crosses the wire. Raises InvalidArgument for a name or a value that cannot."""
    name = check_name("parameters", "parameter", name)
    if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
        raise InvalidArgument(f"`{name}` is a parameter that Triton keeps for itself; it cannot be given here.")
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_text(name, value)
        return value
    if isinstance(value, numbers.Integral):  # NumPy's too
        if int(value) not in _INT64:
            raise InvalidArgument(f"`{name}` is a whole number that does not fit 64 bits. Give a smaller one.")
        return int(value)
    if isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError as exc:  # a fraction
            raise InvalidArgument(
                f"`{name}` is a number that does not fit a 64-bit float. Give a smaller one."
            ) from exc
    raise InvalidArgument(f"`{name}` is a {type(value).__qualname__}; expected a string, a number or a boolean.")


def _rows(tensor: Tensor, count: int) -> list[bytes]:
    if tensor.datatype != "BYTES" or tensor.shape != (count, 1):
        raise ValueError(f"`{tensor.name}` is {tensor.shape} {tensor.datatype}; expected ({count}, 1) BYTES.")
    elements = elements_of(tensor)
    if len(elements) != count:
        raise ValueError(f"`{tensor.name}` holds {len(elements)} elements; expected {count}.")
    return elements


def _parameters(**given: Parameter | None) -> dict[str, Parameter]:
    """The parameters to send: None is left to the server. What they may be is for the server to say, not for here."""
    return {name: _parameter(name, value) for name, value in given.items() if value is not None}


def _parameter(name: str, value: object) -> Parameter:
    if name == "output_encoding" and value != "raw":
        raise InvalidArgument(f"`{name}` is {value!r}; a Picture holds the bytes of a file. Leave it out.")
    return check_parameter(name, value)


def _picture(answer: Answer, output: str) -> Picture:
    call = answer.call
    data = answer.outputs.get(output)
    if data is None:
        raise ResponseInvalid(
            f"`{answer.model}` answered without the output `{output}`; there came {sorted(answer.outputs) or 'none'}.",
            model=call.model,
            request_id=answer.request_id,
        )
    found = format_of_bytes(data)
    if found is None:
        raise ResponseInvalid(
            f"`{output}` of `{answer.model}` is no {', '.join(known.name.upper() for known in FORMATS)} file; its "
            f"{len(data)} bytes begin with {data[:8].hex(' ') or 'nothing'}.",
            model=call.model,
            request_id=answer.request_id,
        )
    return Picture(
        bytes=data,
        format=found.name,
        model=answer.model,
        model_version=answer.model_version,
        request_id=answer.request_id,
        timings=answer.timings,
    )
