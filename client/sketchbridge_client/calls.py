"""What each verb sends and how its answer is read: no I/O, no protocol, so every client shares it."""

from __future__ import annotations

import numbers
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sketchbridge_client.errors import InvalidArgument, ResponseInvalid
from sketchbridge_client.formats import FORMATS, OutputFormat, format_of_bytes
from sketchbridge_client.inputs import PictureInput, encoded_bytes
from sketchbridge_client.models import PHOTO, REPAINTED, SKETCH, ModelKind
from sketchbridge_client.pictures import Picture, Roundtrip

Fit = Literal["letterbox", "crop", "stretch"]
Normalise = Literal["auto", "off"]
Parameter = str | bool | int | float

SKETCH_MODEL = "sketch"
ROUNDTRIP_SUFFIX = "_roundtrip"

# Triton keeps these request parameters for itself. Source: its parameters extension of the KServe v2 protocol.
_RESERVED = frozenset({"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers"})
_RESERVED_PREFIXES = ("triton_", "binary_data_")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Call:
    """One request: a picture file into one model, and the outputs that are wanted of it.

    wanted: the kind of model this call is for. parameters: request parameters, as the model takes them.
    """

    model: str
    wanted: ModelKind
    input_name: str
    picture: bytes = field(repr=False)
    outputs: tuple[str, ...]
    parameters: Mapping[str, Parameter]
    request_id: str


@dataclass(frozen=True)
class Answer:
    """What came back: the bytes of each output, who made them, and how long it took in seconds."""

    call: Call
    outputs: Mapping[str, bytes] = field(repr=False)
    model: str
    model_version: str
    elapsed_s: float


def paint_call(
    sketch: PictureInput,
    *,
    model: str,
    fit: Fit | None,
    normalise: Normalise | None,
    output_format: OutputFormat | None,
    quality: int | None,
) -> Call:
    """The request of `paint`. Raises InvalidArgument."""
    parameters = _parameters(fit=fit, normalise=normalise, output_format=output_format, quality=quality)
    return _call(model, ModelKind.PAINTER, (SKETCH, sketch), (PHOTO,), parameters)


def sketch_call(
    photo: PictureInput,
    *,
    method: str | None,
    output_format: OutputFormat | None,
    quality: int | None,
    parameters: Mapping[str, Parameter],
) -> Call:
    """The request of `sketch`. Raises InvalidArgument."""
    sent = _parameters(method=method, output_format=output_format, quality=quality, **parameters)
    return _call(SKETCH_MODEL, ModelKind.SKETCHER, (PHOTO, photo), (SKETCH,), sent)


def roundtrip_call(
    photo: PictureInput,
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
    _check_model(model)
    outputs = (SKETCH, REPAINTED)
    return _call(f"{model}{ROUNDTRIP_SUFFIX}", ModelKind.ROUNDTRIP, (PHOTO, photo), outputs, sent)


def painted(answer: Answer) -> Picture:
    """The answer to a `paint_call`. Raises ResponseInvalid."""
    return _picture(answer, PHOTO)


def sketched(answer: Answer) -> Picture:
    """The answer to a `sketch_call`. Raises ResponseInvalid."""
    return _picture(answer, SKETCH)


def there_and_back(answer: Answer) -> Roundtrip:
    """The answer to a `roundtrip_call`. Raises ResponseInvalid."""
    return Roundtrip(sketch=_picture(answer, SKETCH), photo=_picture(answer, REPAINTED))


def _call(
    model: str,
    wanted: ModelKind,
    named_input: tuple[str, PictureInput],
    outputs: tuple[str, ...],
    parameters: dict[str, Parameter],
) -> Call:
    _check_model(model)
    input_name, picture = named_input
    return Call(
        model=model,
        wanted=wanted,
        input_name=input_name,
        picture=encoded_bytes(picture, name=input_name),
        outputs=outputs,
        parameters=parameters,
        request_id=uuid.uuid4().hex,
    )


def _check_model(model: str) -> None:
    if not isinstance(model, str) or not model:
        raise InvalidArgument(f'`model` is {model!r}; expected the name of a model, such as "shoes".')
    _check_text("model", model)


def _check_text(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:  # a lone surrogate, as a command line with bytes that are no UTF-8 gives
        raise InvalidArgument(f"`{name}` is {text!r}, which is no valid Unicode text.") from exc


def _parameters(**given: Parameter | None) -> dict[str, Parameter]:
    """The parameters to send: None is left to the server. What they may be is for the server to say, not for here."""
    return {name: _parameter(name, value) for name, value in given.items() if value is not None}


def _parameter(name: str, value: object) -> Parameter:
    if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
        raise InvalidArgument(f"`{name}` is a parameter that Triton keeps for itself; it cannot be given here.")
    if name == "output_encoding" and value != "raw":
        raise InvalidArgument(f"`{name}` is {value!r}; a Picture holds the bytes of a file. Leave it out.")
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        _check_text(name, value)
        return value
    if isinstance(value, numbers.Integral):  # NumPy's too
        if int(value) not in _INT64:
            raise InvalidArgument(f"`{name}` is {value}; a whole number must fit 64 bits.")
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise InvalidArgument(f"`{name}` is a {type(value).__qualname__}; expected a string, a number or a boolean.")


def _picture(answer: Answer, output: str) -> Picture:
    call = answer.call
    data = answer.outputs.get(output)
    if data is None:
        raise ResponseInvalid(
            f"`{answer.model}` answered without the output `{output}`; there came {sorted(answer.outputs) or 'none'}.",
            model=call.model,
            request_id=call.request_id,
        )
    found = format_of_bytes(data)
    if found is None:
        raise ResponseInvalid(
            f"`{output}` of `{answer.model}` is no {', '.join(known.name.upper() for known in FORMATS)} file; its "
            f"{len(data)} bytes begin with {data[:8].hex(' ') or 'nothing'}.",
            model=call.model,
            request_id=call.request_id,
        )
    return Picture(
        bytes=data,
        format=found.name,
        model=answer.model,
        model_version=answer.model_version,
        request_id=call.request_id,
        elapsed_s=answer.elapsed_s,
    )
