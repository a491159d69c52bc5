"""The blocking client: each verb builds a call, sends it over gRPC and reads the answer."""

from __future__ import annotations

import difflib
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from sketchbridge_client.calls import (
    Answer,
    Call,
    Fit,
    Normalise,
    Parameter,
    paint_call,
    painted,
    roundtrip_call,
    sketch_call,
    sketched,
    there_and_back,
)
from sketchbridge_client.errors import (
    ConnectionFailed,
    InvalidArgument,
    ModelNotFound,
    ModelNotReady,
    SketchbridgeError,
)
from sketchbridge_client.formats import OutputFormat
from sketchbridge_client.grpc_wire import (
    CHANNEL_ARGUMENTS,
    check_url,
    infer_arguments,
    read_answer,
    read_index,
    read_kind,
)
from sketchbridge_client.inputs import PictureInput
from sketchbridge_client.models import ModelInfo, ModelKind, summarise
from sketchbridge_client.pictures import Picture, Roundtrip
from sketchbridge_client.status import Attempt, error_from_status
from sketchbridge_client.timeouts import UNSET, Deadline, Timeout, check_timeout_s

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 30.0
_EXPLAIN_TIMEOUT_S = 2.0  # for asking what models there are, once a call has failed already


class Client:
    """A connection to one Sketchbridge server. Threads may share it; close it, or use it in a `with` block.

    url: host and gRPC port, no scheme. timeout_s: seconds each call may take unless it says otherwise; None waits
    without limit. Nothing is sent before the first call, so a Client can be made before its server is up.

    Every verb takes a picture as a path, the bytes of a file, a Pillow image, a uint8 array of (H, W, 3) RGB or (H, W)
    gray in [0, 255], or a Picture that another verb gave. Every verb may raise any error of `errors.py`, and no other.
    """

    def __init__(self, url: str = DEFAULT_URL, *, timeout_s: float | None = DEFAULT_TIMEOUT_S) -> None:
        self._url = check_url(url)
        self._timeout_s = check_timeout_s(timeout_s)
        self._grpc = InferenceServerClient(self._url, channel_args=CHANNEL_ARGUMENTS)
        self._closed = False

    def __repr__(self) -> str:
        return f"Client({self._url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. Calls still waiting in other threads end with ConnectionFailed. Closing twice does nothing."""
        self._closed = True
        self._grpc.close()

    def paint(
        self,
        sketch: PictureInput,
        /,
        *,
        model: str = "shoes",
        fit: Fit | None = None,
        normalise: Normalise | None = None,
        output_format: OutputFormat | None = None,
        quality: int | None = None,
        timeout_s: Timeout = UNSET,
    ) -> Picture:
        """Paint a photo from a drawing.

        sketch: the drawing, any size; dark lines on light paper or the reverse. model: a painter, see `models()`.
        fit: how a drawing that is not square is brought to the model's size. normalise: "off" only fits the drawing and
        does not redraw its lines. output_format, quality: of the photo; quality is 1 to 100 and no matter for PNG. What
        is None is left to the server. timeout_s: seconds for this call; None waits without limit.
        """
        call = paint_call(
            sketch, model=model, fit=fit, normalise=normalise, output_format=output_format, quality=quality
        )
        return painted(self._send(call, timeout_s))

    def sketch(
        self,
        photo: PictureInput,
        /,
        *,
        method: str | None = None,
        output_format: OutputFormat | None = None,
        quality: int | None = None,
        timeout_s: Timeout = UNSET,
        **parameters: Parameter,
    ) -> Picture:
        """Draw the lines of a photo: dark lines on white.

        method: "canny", "laplacian", "dodge" or "xdog". parameters: the method's own numbers, such as
        `low_threshold=50` for canny or `sigma=0.8` for xdog, and the server's other options, such as `max_side_px=512`;
        the server refuses one that it does not know. The rest is as for `paint`.
        """
        call = sketch_call(photo, method=method, output_format=output_format, quality=quality, parameters=parameters)
        return sketched(self._send(call, timeout_s))

    def roundtrip(
        self,
        photo: PictureInput,
        /,
        *,
        model: str = "shoes",
        method: str | None = None,
        fit: Fit | None = None,
        normalise: Normalise | None = None,
        output_format: OutputFormat | None = None,
        quality: int | None = None,
        timeout_s: Timeout = UNSET,
        **parameters: Parameter,
    ) -> Roundtrip:
        """Draw the lines of a photo and paint a photo from them again, in one request.

        model: the painter; the server runs the model `<model>_roundtrip`. fit, normalise: of the drawing on its way to
        the painter, as for `paint`. The rest is as for `sketch`.
        """
        call = roundtrip_call(
            photo,
            model=model,
            method=method,
            fit=fit,
            normalise=normalise,
            output_format=output_format,
            quality=quality,
            parameters=parameters,
        )
        return there_and_back(self._send(call, timeout_s))

    def models(self, *, timeout_s: Timeout = UNSET) -> list[ModelInfo]:
        """Every model the server has, ready or not, by name. timeout_s: seconds for all the requests this takes."""
        deadline = Deadline(self._limit_s(timeout_s))
        with self._translated(Attempt(self._url, timeout_s=deadline.timeout_s)):
            entries = read_index(self._grpc.get_model_repository_index(client_timeout=deadline.remaining_s()))
        names = sorted({entry.name for entry in entries})
        loaded = {entry.name for entry in entries if entry.state == "READY"}
        return [
            summarise(name, entries, self._kind(name, deadline) if name in loaded else ModelKind.UNKNOWN)
            for name in names
        ]

    def ready(self, model: str | None = None, *, timeout_s: Timeout = UNSET) -> bool:
        """Whether the server, or one model of it, takes requests. False too if nothing answers in time."""
        limit = self._limit_s(timeout_s)
        try:
            with self._translated(Attempt(self._url, model=model, timeout_s=limit)):
                if model is None:
                    return bool(self._grpc.is_server_ready(client_timeout=limit))
                return bool(self._grpc.is_model_ready(model, client_timeout=limit))
        except ConnectionFailed as exc:
            logger.debug("not ready url=%s reason=%s", self._url, exc)
            return False

    def live(self, *, timeout_s: Timeout = UNSET) -> bool:
        """Whether a server answers at all, ready or not. False if nothing does in time."""
        limit = self._limit_s(timeout_s)
        try:
            with self._translated(Attempt(self._url, timeout_s=limit)):
                return bool(self._grpc.is_server_live(client_timeout=limit))
        except ConnectionFailed as exc:
            logger.debug("not live url=%s reason=%s", self._url, exc)
            return False

    def _limit_s(self, timeout_s: Timeout) -> float | None:
        return self._timeout_s if timeout_s is UNSET else check_timeout_s(timeout_s)

    def _send(self, call: Call, timeout_s: Timeout) -> Answer:
        limit = self._limit_s(timeout_s)
        arguments = infer_arguments(call)
        started = time.perf_counter()
        try:
            with self._translated(Attempt(self._url, call.model, call.request_id, limit)):
                result = self._grpc.infer(**arguments, client_timeout=limit)
        except (ModelNotFound, ModelNotReady) as exc:
            raise self._explained(exc, call, limit) from exc.__cause__
        return read_answer(call, result, time.perf_counter() - started)

    def _kind(self, model: str, deadline: Deadline) -> ModelKind:
        try:
            with self._translated(Attempt(self._url, model, timeout_s=deadline.timeout_s)):
                return read_kind(self._grpc.get_model_metadata(model, client_timeout=deadline.remaining_s()))
        except (ModelNotFound, ModelNotReady):  # unloaded since the index was read
            return ModelKind.UNKNOWN

    @contextmanager
    def _translated(self, attempt: Attempt) -> Iterator[None]:
        """Let only our own errors out of a block that talks to the server."""
        if self._closed:
            raise InvalidArgument(f"This client of {self._url} is closed. Make a new one.")
        try:
            yield
        except InferenceServerException as exc:
            raise error_from_status(exc.status(), exc.message(), attempt) from exc
        except ValueError as exc:  # what gRPC raises if another thread closes the channel just now
            if not self._closed:
                raise
            raise ConnectionFailed(
                f"This client of {self._url} was closed during the call.",
                model=attempt.model,
                request_id=attempt.request_id,
            ) from exc

    def _explained(
        self, error: ModelNotFound | ModelNotReady, call: Call, limit_s: float | None
    ) -> ModelNotFound | ModelNotReady:
        """The same error, with what the server has to offer instead, or why the model is not ready."""
        try:
            models = self.models(timeout_s=min(limit_s or _EXPLAIN_TIMEOUT_S, _EXPLAIN_TIMEOUT_S))
        except SketchbridgeError as exc:
            logger.debug("cannot list models url=%s reason=%s", self._url, exc)
            return error
        return explain(error, call, models)


def explain(error: ModelNotFound | ModelNotReady, call: Call, models: list[ModelInfo]) -> ModelNotFound | ModelNotReady:
    """The same error with more in its message: models of the wanted kind, or the reason the model is not ready."""
    context = {"status": error.status, "model": error.model, "request_id": error.request_id}
    if isinstance(error, ModelNotReady):
        reasons = [model.reason for model in models if model.name == call.model and model.reason]
        return ModelNotReady(" ".join([str(error), *(f"The server says: {reason}" for reason in reasons)]), **context)
    available = tuple(model.name for model in models if model.ready and model.kind is call.wanted)
    listed = ", ".join(f"`{name}`" for name in available) or "none"
    closest = difflib.get_close_matches(call.model, available, n=1)
    suggestion = f" Did you mean `{closest[0]}`?" if closest else ""
    return ModelNotFound(
        f"{error} Models it has of this kind ({call.wanted.value}): {listed}.{suggestion}",
        available=available,
        **context,
    )
