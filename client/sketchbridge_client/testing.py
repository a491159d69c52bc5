"""A server for the tests of what is built on this package: no server, no network, no threads, and no waiting.

    >>> from sketchbridge_client.testing import FakeServer
    >>> server = FakeServer()
    >>> with server.client() as client:
    ...     photo = client.paint(drawing, model="shoes", output_format="jpeg")
    >>> photo.array.shape, photo.format
    ((256, 256, 3), 'jpeg')
    >>> server.requests[0].verb, server.requests[0].model, dict(server.requests[0].parameters)
    ('paint', 'shoes', {'output_format': 'jpeg'})

What is built on the SDK may as well make its own client, of the fake instead of an address: `Client(server)`.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from sketchbridge_client.aio import AsyncClient
from sketchbridge_client.arrays import arrays_of, tensors_of
from sketchbridge_client.calls import SKETCH_MODEL, check_model
from sketchbridge_client.client import Client
from sketchbridge_client.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidArgument,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    RequestTimeout,
    ServerError,
    SketchbridgeError,
)
from sketchbridge_client.fake_models import (
    MAX_BATCH_SIZE,
    VERSION,
    FakeModel,
    PictureMaker,
    building_blocks,
    painter_models,
)
from sketchbridge_client.in_process import InProcess, OngoingCall
from sketchbridge_client.inputs import PictureInput, encoded_bytes
from sketchbridge_client.messages import Ask, Failed, Infer, Inferred, Parameter, Question, Reply, Request
from sketchbridge_client.status import MEANING_OF_CODE, meaning_of
from sketchbridge_client.timeouts import check_timeout_s

__all__ = ["FakeRequest", "FakeServer"]

PAINTERS = ("birds", "cats", "faces", "flowers", "shoes")
"""Those that are shipped."""

# How the server, or what stands before it, says what becomes these errors. {model}: the name of the model.
_SAID: dict[type[SketchbridgeError], tuple[str, str]] = {
    ConnectionFailed: ("UNAVAILABLE", "Socket closed"),
    RequestTimeout: ("DEADLINE_EXCEEDED", "Deadline Exceeded"),
    ServerError: ("INTERNAL", "The server failed on this picture."),
    ModelNotFound: ("NOT_FOUND", "Request for unknown model: '{model}' is not found"),
    ModelNotReady: ("UNAVAILABLE", "Request for unknown model: '{model}' is not at ready state"),
    InvalidInput: ("INVALID_ARGUMENT", "The picture is refused, as the test asked for"),
    Overloaded: ("UNAVAILABLE", "Exceeds maximum queue size"),
    AccessDenied: ("UNAUTHENTICATED", "refused, as the test asked for"),
}
_OF_A_MODEL = (ModelNotFound, ModelNotReady)
_OF_A_RUN = (InvalidInput, Overloaded)
# What is recorded of a verb that runs no model; the other questions it asks are how it finds its answer.
_RECORDED = {
    "models": {Question.REPOSITORY_INDEX},
    "model": {Question.MODEL_METADATA},
    "stats": {Question.STATISTICS},
    "ready": {Question.SERVER_READY, Question.MODEL_READY},
    "live": {Question.SERVER_LIVE},
}
_NS_EACH = 1_000_000  # made up: what a model takes for one picture


@dataclass(frozen=True)
class FakeRequest:
    """One request that came. A verb that was tried three times made three, a list of twenty pictures makes three too.

    verb: the client's method, such as "paint". model: "" if it was about none. inputs: arrays by the names of the
    model's inputs; files are (N, 1) object arrays of bytes. headers: names in lower case, credentials among them.
    timeout_s: what the call was given; None for no limit. request_id: what the answer, or the error, bears too; "" if
    no model was to be run.
    """

    verb: str
    model: str
    version: str
    inputs: Mapping[str, NDArray[Any]] = field(repr=False)
    parameters: Mapping[str, Parameter]
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float | None
    request_id: str

    @property
    def pictures(self) -> list[bytes]:
        """The files that came, in their order."""
        return [file for array in self.inputs.values() if array.dtype == object for file in array.ravel().tolist()]


@dataclass
class _Failure:
    """What is to fail next. times: how often still, requests or calls."""

    code: str
    words: str
    times: int
    model: str | None
    whole_calls: bool

    def fits(self, request: Request) -> bool:
        error = meaning_of(Failed(self.code, self.words)).error
        if issubclass(error, _OF_A_RUN) and not isinstance(request, Infer):
            return False
        if self.model is not None:
            return request.model == self.model
        return bool(request.model) or not issubclass(error, _OF_A_MODEL)


class FakeServer(InProcess):
    """A server with the models of the real one, which keep to the same tensors, options and errors.

    Pictures are real ones, of the size and format that the real models give; they depend on the pixels that came, and
    are made in a few milliseconds. All clients of a FakeServer share it, and threads may. Connections are never made,
    so `tls` of a client is no matter.

    Clients try again as they do over a network, by their own `retry`, but no pause is slept: it is taken off the time
    that the call has left. So a call that would have given up after 30 seconds gives up at once.

    painters: names of the painters; each comes with its generator and its model for round trips.

    Attributes: requests, what came, oldest first; clear it as you like. What a client asks besides the request of the
    verb, such as how many pictures a model takes at once, is not in it.
    """

    url = "fake://sketchbridge"

    def __init__(self, *, painters: Iterable[str] = PAINTERS) -> None:
        self.requests: list[FakeRequest] = []
        self._models = building_blocks()
        self._makers: dict[str, PictureMaker] = {}
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._failures: list[_Failure] = []
        self._delays_s: dict[str | None, float] = {}
        self._stopped = False
        self._lock = threading.Lock()
        for name in painters:
            self.add_model(name)

    def __repr__(self) -> str:
        return f"FakeServer({len(self._models)} models, {len(self.requests)} requests)"

    def client(self, **options: Any) -> Client:
        """A client of this server. options: as of Client."""
        return Client(self, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        """An asyncio client of this server. options: as of AsyncClient.

        >>> import asyncio
        >>> async def sizes():
        ...     async with FakeServer().async_client() as client:
        ...         return [photo.array.shape for photo in await client.paint([drawing, drawing])]
        >>> asyncio.run(sizes())
        [(256, 256, 3), (256, 256, 3)]
        """
        return AsyncClient(self, **options)

    def fail_next(
        self, failure: str | type[SketchbridgeError], *, words: str = "", times: int = 1, model: str | None = None
    ) -> None:
        """Let what comes next fail.

        failure: an error of this package, which the next `times` calls then raise, all their tries in vain; or a gRPC
        status code, which the next `times` requests are answered with, so that a client may try again and be lucky.
        words: what the server says. With some codes they decide what error it is, as those of a real server do; an
        error stays what it is.
        model: only what is about the model of this name. Else whatever comes next fails; but what only a model could
        say waits for a request about one.

        >>> server = FakeServer()
        >>> server.fail_next("UNAVAILABLE", words="Socket closed", times=2)
        >>> client = server.client()
        >>> client.paint(drawing).timings.attempts
        3
        >>> server.fail_next(Overloaded)
        >>> client.paint(drawing)
        Traceback (most recent call last):
        sketchbridge_client.errors.Overloaded: `shoes` at fake://sketchbridge has too much to do: Exceeds maximum ...
        >>> client.close()
        """
        if isinstance(times, bool) or not isinstance(times, int) or times < 1:
            raise InvalidArgument(f"`times` is {times!r}; expected a whole number from 1.")
        if isinstance(failure, type) and failure in _SAID:
            code, usual = _SAID[failure]
            whole_calls = True
            if words and meaning_of(Failed(code, words)).error is not failure:
                words = f"{usual}: {words}"
        elif isinstance(failure, str) and failure in MEANING_OF_CODE and failure != "OK":
            code, usual, whole_calls = failure, "as the test asked for", False
        else:
            errors = ", ".join(error.__name__ for error in _SAID)
            codes = ", ".join(code for code in MEANING_OF_CODE if code != "OK")
            raise InvalidArgument(
                f"`failure` is {failure!r}; expected one of the errors {errors}, or one of the codes {codes}. "
                "For an answer that cannot be read, let a model `answer` bytes that are no picture."
            )
        with self._lock:
            self._failures.append(_Failure(code, words or usual, times, model, whole_calls))

    def answer(self, model: str, picture: PictureInput | Callable[[bytes], PictureInput]) -> None:
        """Let a painter, or "sketch", answer with this. Its round trips and its generator then do too.

        picture: a picture as the verbs take it, or a function from the bytes of the file that came to one. Files and
        bytes are sent as they are, whatever `output_format` was asked for; bytes that are no picture, too.

        >>> server = FakeServer()
        >>> server.answer("shoes", lambda drawing: Image.new("RGB", (20, 10), "red"))
        >>> with server.client() as client:
        ...     client.paint(drawing).array.shape
        (10, 20, 3)
        """
        with self._lock:
            if f"{model}_roundtrip" not in self._models and model != SKETCH_MODEL:
                raise InvalidArgument(f'`{model}` is no painter of this server, and not "sketch". Add it first.')
            if callable(picture):
                function = picture
                self._makers[model] = lambda came: encoded_bytes(function(came), name="answer")
            else:
                data = encoded_bytes(picture, name="picture")
                self._makers[model] = lambda _: data

    def delay(self, seconds: float | None, *, model: str | None = None) -> None:
        """Let each run of a model seem to take this long, of the model of this name or of all; None for no time.

        Nobody waits. A call that has less time left than this raises RequestTimeout at once.

        >>> server = FakeServer()
        >>> server.delay(5, model="shoes")
        >>> with server.client(timeout_s=3) as client:
        ...     client.paint(drawing)
        Traceback (most recent call last):
        sketchbridge_client.errors.RequestTimeout: No answer from `shoes` at fake://sketchbridge within 3 s. ...
        """
        self._delays_s[model] = check_timeout_s(seconds) or 0.0

    def stop(self) -> None:
        """Let nothing answer any more, as if the server were not there. `ready()` and `live()` are False."""
        self._stopped = True

    def start(self) -> None:
        """Answer again after `stop`."""
        self._stopped = False

    def add_model(self, name: str) -> None:
        """Add a painter, its generator and its model for round trips, as `sketchbridge export` does."""
        check_model(name)
        added = painter_models(name)
        with self._lock:
            there = sorted(added.keys() & self._models.keys())
            if there:
                raise InvalidArgument(f"There is a model `{there[0]}` already.")
            self._models |= added

    def remove_model(self, name: str) -> None:
        """Remove a model; a painter goes with its generator and its model for round trips."""
        with self._lock:
            if name not in self._models:
                raise InvalidArgument(f"There is no model `{name}`; there are {', '.join(sorted(self._models))}.")
            for gone in {name, *(painter_models(name) if self._models[name].steps else ())}:
                self._models.pop(gone, None)
                self._makers.pop(gone, None)

    def receive(self, request: Request, headers: Mapping[str, str], call: OngoingCall) -> Reply:
        """Answer a request of a client. Only clients call this."""
        if self._stopped:
            raise Failed("UNAVAILABLE", "Connection refused")
        if isinstance(request, Infer) or request.question in _RECORDED.get(call.verb, ()):
            self.requests.append(_recorded(request, headers, call))
        failed = self._due_failure(request, call)
        if failed is not None:
            if request == Ask(Question.MODEL_READY, request.model) and meaning_of(failed).error in _OF_A_MODEL:
                return False  # the one question that a model which is not there or not ready has an answer to
            raise failed
        if isinstance(request, Ask):
            return self._told(request)
        self._take_time(request, call)
        return self._run(request)

    def _due_failure(self, request: Request, call: OngoingCall) -> Failed | None:
        if call.failure is not None:  # one is enough; what is asked to explain it is answered
            return call.failure if call.failing_model == request.model else None
        with self._lock:
            due = next((failure for failure in self._failures if failure.fits(request)), None)
            if due is None:
                return None
            due.times -= 1
            if not due.times:
                self._failures.remove(due)
        failed = Failed(due.code, due.words.replace("{model}", request.model))
        if due.whole_calls:
            call.failure, call.failing_model = failed, request.model
        return failed

    def _take_time(self, request: Infer, call: OngoingCall) -> None:
        call.skipped_s += self._delays_s.get(request.model, self._delays_s.get(None, 0.0))
        if call.limit_s is not None and call.skipped_s >= call.limit_s:
            raise Failed("DEADLINE_EXCEEDED", "Deadline Exceeded")

    def _run(self, request: Infer) -> Inferred:
        with self._lock:
            model, makers = self._model(request), dict(self._makers)
        rows = model.rows(request)
        try:
            outputs = model.run(request, rows, makers)
        except Failed:
            # What a Python model refuses counts as answered. An ensemble counts it twice, as failed.
            self._count(model.steps[:1] or (model.name,), len(rows))
            with self._lock:
                self._counts[model.name]["failures"] += 2 if model.steps else 0
            raise
        self._count((model.name, *model.steps), len(rows))
        return Inferred(model.name, VERSION, tensors_of(outputs))

    def _count(self, names: Iterable[str], pictures: int) -> None:
        with self._lock:
            for name in names:
                self._counts[name].update(requests=1, pictures=pictures)

    def _told(self, ask: Ask) -> Reply:
        with self._lock:
            if ask.question in {Question.SERVER_LIVE, Question.SERVER_READY}:
                return True
            if ask.question is Question.REPOSITORY_INDEX:
                return {"models": [{"name": name, "version": VERSION, "state": "READY"} for name in self._models]}
            if ask.question is Question.MODEL_READY:
                return ask.model in self._models and ask.version in {"", VERSION}
            if ask.question is Question.STATISTICS:
                return self._statistics(ask.model)
            model = self._model(ask)
            if ask.question is Question.MODEL_CONFIG:
                return {"name": model.name, "platform": model.platform, "max_batch_size": MAX_BATCH_SIZE}
            return model.metadata()

    def _model(self, request: Request) -> FakeModel:
        model = self._models.get(request.model)
        if model is None or request.version not in {"", VERSION}:
            version = f" version {request.version}" if request.version else ""
            raise Failed("NOT_FOUND", f"Request for unknown model: '{request.model}'{version} is not found")
        return model

    def _statistics(self, name: str) -> dict[str, Any]:
        if name and name not in self._models:
            raise Failed("INVALID_ARGUMENT", f"requested model '{name}' is not available")
        told = []
        for model in [name] if name else sorted(self._models):
            counts = self._counts[model]
            took = {"count": counts["requests"], "ns": counts["pictures"] * _NS_EACH}
            told.append(
                {
                    "name": model,
                    "version": VERSION,
                    "inference_count": counts["pictures"],
                    "execution_count": counts["requests"],
                    "inference_stats": {
                        "success": took,
                        "fail": {"count": counts["failures"]},
                        "compute_infer": took,
                    },
                }
            )
        return {"model_stats": told}


def _recorded(request: Request, headers: Mapping[str, str], call: OngoingCall) -> FakeRequest:
    run = request if isinstance(request, Infer) else None
    return FakeRequest(
        verb=call.verb,
        model=request.model,
        version=request.version,
        inputs=arrays_of(Inferred(run.model, run.version, run.inputs)) if run else {},
        parameters=dict(run.parameters) if run else {},
        headers=headers,
        timeout_s=call.limit_s,
        request_id=run.request_id if run else "",
    )
