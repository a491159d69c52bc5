"""Triton's HTTP protocol: what is sent for a request, and what an answer says. Pure, and wary of what it reads.

Source: the KServe v2 REST protocol, with Triton's extensions for binary tensor data, the request's time in the queue,
the model repository and statistics. What Triton answers when was read off a running 2.51.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from sketchbridge_client.inputs import MAX_IMAGE_BYTES
from sketchbridge_client.messages import (
    Ask,
    Failed,
    Headers,
    Infer,
    Inferred,
    Parameter,
    Question,
    Reply,
    Request,
    Tensor,
    queue_timeout_us,
)
from sketchbridge_client.status import code_of_http_status

MAX_ANSWER_BYTES = 2 * MAX_IMAGE_BYTES + 1024 * 1024
"""The largest answer that is read: the two pictures of a roundtrip, with room for what stands before them."""
MAX_ERROR_BYTES = 64 * 1024
"""How much is read of an answer that is an error; Triton's are a line, or the traceback of a model."""

_MAX_JSON_BYTES = 16 * 1024 * 1024  # parsed, JSON takes some thirty times as much memory
_MAX_AXES = 32
_LONGEST_WORDS, _LONGEST_PAGE = 4000, 300  # characters of an error message, and of one that is not JSON
_LONGEST_NAME = 1000  # bytes
_HEADER_LENGTH = "Inference-Header-Content-Length"

_DTYPES = {
    "BOOL": np.dtype("?"),
    **{
        f"{sign}INT{8 * size}": np.dtype(f"<{kind}{size}")
        for sign, kind in (("", "i"), ("U", "u"))
        for size in (1, 2, 4, 8)
    },
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_SIZES_BYTES = {**{name: dtype.itemsize for name, dtype in _DTYPES.items()}, "BF16": 2}
_TYPES_IN_JSON: dict[str, tuple[type, ...]] = {"b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}

_ABOUT_READINESS = {
    Question.SERVER_LIVE: "/v2/health/live",
    Question.SERVER_READY: "/v2/health/ready",
    Question.MODEL_READY: "/ready",
}
_NOT_READY = {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE}  # Triton answers 400
_MODEL_PATHS = {Question.MODEL_METADATA: "", Question.MODEL_CONFIG: "/config", Question.STATISTICS: "/stats"}

_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What to send. path: what follows the address of the server, quoted. body: its parts, to be sent on end."""

    method: str
    path: str
    headers: Headers = ()
    body: tuple[bytes, ...] = field(default=(), repr=False)


def http_request(request: Request, timeout_s: float | None) -> HttpRequest:
    """What to send for a request. Raises ValueError for parameters that JSON has no words for: NaN, infinity.

    timeout_s: what the request is given, which is also how long it may wait in the server's queues.
    """
    if isinstance(request, Infer):
        return _infer(request, timeout_s)
    if request.question is Question.REPOSITORY_INDEX:
        return HttpRequest("POST", "/v2/repository/index")
    if request.question in {Question.SERVER_LIVE, Question.SERVER_READY}:
        return HttpRequest("GET", _ABOUT_READINESS[request.question])
    if request.question is Question.STATISTICS and not request.model:
        return HttpRequest("GET", "/v2/models/stats")
    last = {**_ABOUT_READINESS, **_MODEL_PATHS}[request.question]
    return HttpRequest("GET", _model_path(request) + last)


def read_reply(request: Request, status: int, headers: Mapping[str, str], body: bytes, *, now_s: float) -> Reply:
    """What an answer says.

    headers: names of any case, so a mapping that does not mind it. now_s: the time since the epoch, for a Retry-After
    that is a date. Raises Failed for an answer that is an error, ValueError for one that cannot be understood.
    """
    if isinstance(request, Ask) and request.question in _ABOUT_READINESS and status in _NOT_READY:
        return False
    if status != HTTPStatus.OK:
        raise Failed(
            code_of_http_status(status),
            _error_words(status, headers, body),
            retry_after_s=retry_after_s(headers.get("Retry-After"), now_s=now_s),
        )
    if isinstance(request, Infer):
        return _inferred(headers, body)
    if request.question in _ABOUT_READINESS:
        return True
    answer = _parsed(body)
    if request.question is Question.REPOSITORY_INDEX:
        if not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer):
            raise ValueError("The index of the repository is no list of models.")
        return {"models": answer}
    return _object(answer, "The answer")


def retry_after_s(value: str | None, *, now_s: float) -> float | None:
    """Seconds that a Retry-After header asks for, which is a number of them or a date; None for none or nonsense."""
    value = (value or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:  # "-0000": UTC, from nowhere in particular
            moment = moment.replace(tzinfo=timezone.utc)
        return max(0.0, moment.timestamp() - now_s)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


# What is sent


def _model_path(request: Request) -> str:
    name, version = (
        quote(part, safe="").replace(".", "%2E") if set(part) == {"."} else quote(part, safe="")
        for part in (request.model, request.version)
    )
    return f"/v2/models/{name}/versions/{version}" if version else f"/v2/models/{name}"


def _infer(request: Infer, timeout_s: float | None) -> HttpRequest:
    parameters: dict[str, Parameter] = dict(request.parameters)
    if timeout_s is not None:
        parameters["timeout"] = queue_timeout_us(timeout_s)
    head: dict[str, Any] = {"id": request.request_id} if request.request_id else {}
    head["inputs"] = [
        {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": tensor.size_bytes},
        }
        for tensor in request.inputs
    ]
    if request.outputs:
        head["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in request.outputs]
    else:
        parameters["binary_data_output"] = True
    if parameters:
        head["parameters"] = parameters
    text = _to_json(head).encode("ascii")
    body = (text, *(part for tensor in request.inputs for part in tensor.parts))
    return HttpRequest(
        "POST",
        f"{_model_path(request)}/infer",
        (
            ("content-type", "application/octet-stream"),
            ("content-length", str(sum(map(len, body)))),
            (_HEADER_LENGTH.lower(), str(len(text))),
        ),
        body,
    )


# What comes back


def _error_words(status: int, headers: Mapping[str, str], body: bytes) -> str:
    if status in range(300, 400):
        return f"{_status_words(status)}{_where_to(headers)}; redirects are not followed. Give the address it leads to"
    try:
        answer = _parsed(body)
    except ValueError:  # a proxy's page, or part of a message
        answer = None
    said = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(said, str) and said:
        return _shortened(said.encode(errors="replace").decode(), _LONGEST_WORDS)
    page = " ".join(body[: 4 * _LONGEST_PAGE].decode(errors="replace").split())
    if not page or "\0" in page or page.startswith("<") or "html" in headers.get("Content-Type", ""):
        return _status_words(status)
    return f"{_status_words(status)}: {_shortened(page, _LONGEST_PAGE)}"


def _status_words(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _where_to(headers: Mapping[str, str]) -> str:
    """Without the query, which may hold what lets one in."""
    try:
        parts = urlsplit(headers.get("Location", ""))
        host = parts.hostname
    except ValueError:
        return ""
    return f" to {parts.scheme or 'http'}://{host}{_shortened(parts.path, _LONGEST_PAGE)}" if host else ""


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."


def _parsed(data: bytes) -> Any:
    if len(data) > _MAX_JSON_BYTES:
        raise ValueError(f"The answer has {len(data):,} bytes of JSON; at most {_MAX_JSON_BYTES:,} are taken.")
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as exc:
        raise ValueError(f"The answer is no UTF-8 at byte {exc.start}.") from exc
    except ValueError as exc:
        raise ValueError(f"The answer is no JSON: {exc}.") from exc
    except RecursionError as exc:
        raise ValueError("The answer is JSON of too many levels.") from exc


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {_kind(value)}; expected a JSON object.")  # noqa: TRY004  the answer is at fault
    return value


def _text(holder: Mapping[str, Any], key: str, *, default: str | None = None) -> str:
    value = holder.get(key, default)
    if not isinstance(value, str):
        came = "is missing" if value is None else f"is {_kind(value)}"
        raise ValueError(f"`{key}` {came} in the answer; expected a text.")  # noqa: TRY004  the answer is at fault
    if len(_utf8(value)) > _LONGEST_NAME:
        raise ValueError(f"`{key}` of the answer has {len(value):,} characters; at most {_LONGEST_NAME} are taken.")
    return value


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise ValueError("The answer has half of a surrogate pair, which is no valid Unicode text.") from exc


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _inferred(headers: Mapping[str, str], body: bytes) -> Inferred:
    head_bytes = _head_bytes(headers.get(_HEADER_LENGTH), len(body))
    answer = _object(_parsed(body[:head_bytes]), "The answer")
    described = answer.get("outputs", [])
    if not isinstance(described, list):
        raise ValueError(f"`outputs` of the answer is {_kind(described)}; expected a list.")  # noqa: TRY004  as above
    outputs: dict[str, Tensor] = {}
    at = head_bytes
    for output in described:
        tensor = _tensor(_object(output, "An output of the answer"), body, at)
        if tensor.name in outputs:
            raise ValueError(f"The output `{tensor.name}` came twice.")
        outputs[tensor.name] = tensor
        at += 0 if "data" in output else tensor.size_bytes
    if at != len(body):
        raise ValueError(f"{len(body) - at:,} bytes of the answer belong to no output.")
    parameters = _object(answer.get("parameters", {}), "`parameters` of the answer")
    if not all(isinstance(value, (str, bool, int, float)) for value in parameters.values()):
        raise ValueError("`parameters` of the answer has what is no text, number or boolean.")
    return Inferred(
        model=_text(answer, "model_name"),
        version=_text(answer, "model_version", default=""),
        outputs=tuple(outputs.values()),
        parameters=parameters,
    )


def _head_bytes(value: str | None, size: int) -> int:
    """How many bytes of the answer are JSON: all of it if no header says so."""
    if value is None:
        return size
    if not re.fullmatch(r"[0-9]{1,12}", value) or int(value) > size:
        raise ValueError(
            f"{_HEADER_LENGTH} is `{_shortened(value, 20)}`; expected at most the {size:,} bytes that came."
        )
    return int(value)


def _tensor(described: dict[str, Any], body: bytes, at: int) -> Tensor:
    """The tensor that is described so; if it is binary, its bytes begin at `at`."""
    name, datatype = _text(described, "name"), _text(described, "datatype")
    if datatype != "BYTES" and datatype not in _SIZES_BYTES:
        raise ValueError(
            f"`{_shortened(name, 100)}` has the datatype `{_shortened(datatype, 20)}`, which KServe v2 does not know."
        )
    shape = _shape(described.get("shape"), name)
    if "data" in described:
        return Tensor(name, datatype, shape, (_data_of_json(described["data"], datatype, shape, name),))
    size = _object(described.get("parameters"), f"`parameters` of `{name}`").get("binary_data_size")
    if type(size) is not int or not 0 <= size <= len(body) - at:
        raise ValueError(f"`binary_data_size` of `{name}` is not a size of what came, {len(body) - at:,} bytes.")
    data = body[at : at + size]
    count = math.prod(shape)
    if datatype == "BYTES":
        if _count_elements(data, name, at_most=count) != count:
            raise ValueError(f"`{name}` is {shape} BYTES, and its {size:,} bytes do not hold that many elements.")
    elif size != count * _SIZES_BYTES[datatype]:
        raise ValueError(f"`{name}` is {shape} {datatype}, and {size:,} bytes came.")
    return Tensor(name, datatype, shape, (data,))


def _shape(value: Any, name: str) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or len(value) > _MAX_AXES
        or not all(type(axis) is int and 0 <= axis < 2**63 for axis in value)
    ):
        raise ValueError(f"`shape` of `{name}` is no list of at most {_MAX_AXES} whole numbers.")
    return tuple(value)


def _count_elements(data: bytes, name: str, *, at_most: int) -> int:
    """How many elements of BYTES there are; counts one more than `at_most`, and no further."""
    at, count = 0, 0
    while at < len(data) and count <= at_most:
        at += 4 + int.from_bytes(data[at : at + 4], "little")
        count += 1
    if at > len(data):
        raise ValueError(f"`{name}` ends in the middle of its element {count - 1}.")
    return count


def _data_of_json(data: Any, datatype: str, shape: tuple[int, ...], name: str) -> bytes:
    values = _flat(data, shape, name)
    if len(values) != math.prod(shape):
        raise ValueError(f"`{name}` is {shape} {datatype}, and {len(values):,} elements came.")
    if datatype == "BYTES":
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"`data` of `{name}` has what is no text.")
        elements = [_utf8(value) for value in values]
        return b"".join(part for element in elements for part in (len(element).to_bytes(4, "little"), element))
    if datatype not in _DTYPES:
        raise ValueError(f"`{name}` is {datatype}, which JSON cannot hold.")
    return _numbers(values, _DTYPES[datatype], f"`data` of `{name}` has what is no {datatype}.")


def _flat(data: Any, shape: tuple[int, ...], name: str) -> list[Any]:
    """The elements, row by row; they come so already, or as lists of lists that follow the shape."""
    if not isinstance(data, list):
        raise ValueError(f"`data` of `{name}` is {_kind(data)}; expected a list.")  # noqa: TRY004  the answer is at fault
    values: list[Any] = data
    for axis in shape[1:]:
        if not any(isinstance(part, list) for part in values):
            break
        if not all(isinstance(part, list) and len(part) == axis for part in values):
            raise ValueError(f"`data` of `{name}` does not follow its shape {shape}.")
        values = [value for part in values for value in part]
    return values


def _numbers(values: list[Any], dtype: np.dtype[Any], otherwise: str) -> bytes:
    if not all(type(value) in _TYPES_IN_JSON[dtype.kind] for value in values):
        raise ValueError(otherwise)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if values and not (limits.min <= min(values) and max(values) <= limits.max):
            raise ValueError(otherwise)
    try:
        with np.errstate(over="ignore"):  # to infinity, as the server's own cast would
            return np.array(values, dtype).tobytes()
    except OverflowError as exc:  # a whole number beyond all floats
        raise ValueError(otherwise) from exc
