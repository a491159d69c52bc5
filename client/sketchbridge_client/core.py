"""The verbs, for the blocking client and the asyncio one alike: programs that say what to send and read what comes."""

from __future__ import annotations

import difflib
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from sketchbridge_client.arrays import Inference, arrays_of, tensors_of
from sketchbridge_client.batches import PictureBatch, batch_failed, chunks, encode_batch, is_batch
from sketchbridge_client.calls import (
    Answer,
    Call,
    check_model,
    check_parameter,
    check_text,
    infer_request,
    read_answers,
)
from sketchbridge_client.conversation import Hedge, Servers, Settled
from sketchbridge_client.errors import (
    InvalidArgument,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    ResponseInvalid,
    SketchbridgeError,
)
from sketchbridge_client.inputs import PictureInput, encoded_bytes
from sketchbridge_client.messages import Ask, Infer, Inferred, Parameter, Question, Request, Tensor
from sketchbridge_client.models import (
    ModelDetails,
    ModelInfo,
    ModelKind,
    ModelStats,
    read_details,
    read_index,
    read_kind,
    read_max_batch_size,
    read_stats,
    summarise,
)
from sketchbridge_client.programs import Prepare, Program
from sketchbridge_client.retries import Retry
from sketchbridge_client.targets import Target
from sketchbridge_client.telemetry import Observation, Telemetry
from sketchbridge_client.timeouts import UNSET, Deadline, Timeout, check_timeout_s
from sketchbridge_client.timings import TIMINGS, Timings, told_in

logger = logging.getLogger(__name__)

DEFAULT_URL = "127.0.0.1:8001"
DEFAULT_TIMEOUT_S = 30.0
_HAS_NO_TIMINGS = f"unexpected inference output '{TIMINGS}'"  # Triton's words
_ASK_AGAIN_S = 600.0  # a model for its timings, if it had none
_EXPLAIN_TIMEOUT_S = 2.0  # for asking what models there are, once a call has failed already

# Tells requests apart. Not the generator of the module, which a caller may seed.
_ids = random.Random()  # noqa: S311  ids are no secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.seed)

T = TypeVar("T")
Read = Callable[[Answer], T]
Work = Callable[[Deadline, Observation, str], Program[T]]
"""What a call of a verb does: by when, watched by whom, and under which request id."""


class Core:
    """All that a client is but for its way of waiting. clock: what it tells the time by, in seconds."""

    def __init__(
        self,
        targets: Sequence[Target],
        timeout_s: float | None,
        retry: Retry,
        hedge: Hedge | None,
        telemetry: Telemetry,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.servers = Servers(targets, retry, hedge, clock=clock)
        self._timeout_s = check_timeout_s(timeout_s)
        self._telemetry = telemetry
        self._max_batch_sizes: dict[str, int] = {}
        self._without_timings: dict[str, float] = {}  # models, and when they said so

    def pictures(self, call: Call, given: Any, bgr: bool, timeout_s: Timeout, read: Read[T]) -> Program[T | list[T]]:  # noqa: FBT001
        """A verb on one picture, or on a batch of them."""
        limit_s = self._limit_s(timeout_s)
        if is_batch(given):
            return self.call_of(
                call.verb,
                call.model,
                limit_s,
                lambda deadline, seen, number: self._batch(call, given, bgr, deadline, read, seen, number),
            )
        return self.call_of(
            call.verb,
            call.model,
            limit_s,
            lambda deadline, seen, number: self._single(call, given, bgr, deadline, read, seen, number),
        )

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str],
        version: str,
        parameters: Mapping[str, Parameter] | None,
        timeout_s: Timeout,
    ) -> Program[Inference]:
        """See Client.infer."""
        limit_s = self._limit_s(timeout_s)
        check_model(model)
        if isinstance(outputs, str):
            raise InvalidArgument(f"`outputs` is the string {outputs!r}; expected a list of names.")
        _check_version(version)
        sent = {name: check_parameter(name, value) for name, value in (parameters or {}).items()}

        def work(deadline: Deadline, observation: Observation, request_id: str) -> Program[Inference]:
            began_s = time.perf_counter()
            tensors: tuple[Tensor, ...] = yield Prepare(lambda: tensors_of(inputs))
            request = Infer(model, version, tensors, tuple(outputs), sent, request_id)
            settled = yield from self._ask_model(request, None, deadline, observation)
            inferred = _inferred(settled)
            try:
                arrays = arrays_of(inferred)
            except ValueError as exc:
                raise ResponseInvalid(
                    f"The answer of `{model}` cannot be read: {exc}", model=model, request_id=request_id
                ) from exc
            return Inference(
                outputs=arrays,
                model=inferred.model or model,
                model_version=inferred.version,
                request_id=request_id,
                parameters=inferred.parameters,
                timings=_timings(began_s, observation, settled),
            )

        return self.call_of("infer", model, limit_s, work)

    def models(self, timeout_s: Timeout) -> Program[list[ModelInfo]]:
        """See Client.models."""
        limit_s = self._limit_s(timeout_s)
        return self.call_of("models", None, limit_s, lambda deadline, seen, _: self._models(deadline, seen))

    def model(self, name: str, version: str, timeout_s: Timeout) -> Program[ModelDetails]:
        """See Client.model."""
        limit_s = self._limit_s(timeout_s)
        check_model(name)
        _check_version(version)

        def work(deadline: Deadline, observation: Observation, _: str) -> Program[ModelDetails]:
            def ask(question: Question) -> Program[Settled]:
                return (yield from self._ask_model(Ask(question, name, version), None, deadline, observation))

            metadata = yield from ask(Question.MODEL_METADATA)
            config = yield from ask(Question.MODEL_CONFIG)
            ready = yield from ask(Question.MODEL_READY)
            details = partial(read_details, version, _understood(metadata, dict), ready=bool(ready.reply))
            return _understood(config, details)

        return self.call_of("model", name, limit_s, work)

    def stats(self, model: str | None, timeout_s: Timeout) -> Program[list[ModelStats]]:
        """See Client.stats."""
        limit_s = self._limit_s(timeout_s)
        if model is not None:
            check_model(model)

        def work(deadline: Deadline, observation: Observation, _: str) -> Program[list[ModelStats]]:
            settled = yield from self._ask_model(Ask(Question.STATISTICS, model or ""), None, deadline, observation)
            return _understood(settled, read_stats)

        return self.call_of("stats", model, limit_s, work)

    def ready(self, model: str | None, timeout_s: Timeout) -> Program[bool]:
        """See Client.ready."""
        limit_s = self._limit_s(timeout_s)
        ask = Ask(Question.SERVER_READY) if model is None else Ask(Question.MODEL_READY, check_model(model))
        return self.call_of(
            "ready", model, limit_s, lambda deadline, seen, _: self.servers.any_says_yes(ask, deadline, seen)
        )

    def live(self, timeout_s: Timeout) -> Program[bool]:
        """See Client.live."""
        limit_s, ask = self._limit_s(timeout_s), Ask(Question.SERVER_LIVE)
        return self.call_of(
            "live", None, limit_s, lambda deadline, seen, _: self.servers.any_says_yes(ask, deadline, seen)
        )

    def call_of(self, verb: str, model: str | None, limit_s: float | None, work: Work[T]) -> Program[T]:
        """One call of a verb, from its beginning to its end. limit_s: seconds that it may take, None for no limit."""
        deadline = Deadline(limit_s, clock=self.servers.clock)
        if self.servers.closed:
            raise InvalidArgument(f"This client of {self.servers.urls} is closed. Make a new one.")
        request_id = f"{_ids.getrandbits(128):032x}"
        observation = self._telemetry.begin(verb, model, request_id)
        try:
            result = yield from work(deadline, observation, request_id)
        except BaseException as exc:
            observation.ended(exc)
            raise
        observation.ended(None)
        return result

    def _limit_s(self, timeout_s: Timeout) -> float | None:
        return self._timeout_s if timeout_s is UNSET else check_timeout_s(timeout_s)

    def _single(
        self,
        call: Call,
        picture: PictureInput,
        bgr: bool,  # noqa: FBT001
        deadline: Deadline,
        read: Read[T],
        observation: Observation,
        request_id: str,
    ) -> Program[T]:
        began_s = time.perf_counter()
        if isinstance(picture, bytes):  # nothing to wait for
            data = encoded_bytes(picture, name=call.input_name, bgr=bgr)
        else:
            data = yield Prepare(lambda: encoded_bytes(picture, name=call.input_name, bgr=bgr))
        (answer,) = yield from self._answers(call, [data], deadline, observation, request_id, began_s)
        return read(answer)

    def _batch(
        self,
        call: Call,
        pictures: PictureBatch,
        bgr: bool,  # noqa: FBT001
        deadline: Deadline,
        read: Read[T],
        observation: Observation,
        request_id: str,
    ) -> Program[list[T]]:
        began_s = time.perf_counter()
        files, errors = yield Prepare(lambda: encode_batch(pictures, name=call.input_name, bgr=bgr))
        good = [index for index, file in enumerate(files) if file is not None]
        size = 1
        if len(good) > 1:
            size = yield from self._max_batch_size(call, deadline, observation)
        results: list[T | None] = [None] * len(files)
        waiting = list(chunks(good, size, sizes_bytes=[len(file or b"") for file in files]))
        while waiting:
            indices = waiting.pop(0)
            try:
                answers = yield from self._answers(
                    call, [files[index] for index in indices], deadline, observation, request_id, began_s
                )
            except InvalidInput as exc:
                if len(indices) > 1:  # one of them is bad, and spoils it for the others: each alone
                    waiting[:0] = [[index] for index in indices]
                else:
                    errors[indices[0]] = exc
            except SketchbridgeError as exc:
                errors.update(dict.fromkeys(indices, exc))
            else:
                for index, answer in zip(indices, answers, strict=True):
                    try:
                        results[index] = read(answer)
                    except ResponseInvalid as exc:  # noqa: PERF203  one bad answer must not take the others with it
                        errors[index] = exc
        if errors:
            raise batch_failed(results, errors)
        return results  # type: ignore[return-value]  # each has its result, as none has an error

    def _answers(
        self,
        call: Call,
        files: list[bytes],
        deadline: Deadline,
        observation: Observation,
        request_id: str,
        began_s: float,
    ) -> Program[list[Answer]]:
        refused = 0
        with_timings = self._tells_timings(call.model)
        request = infer_request(call, files, request_id, with_timings=with_timings)
        try:
            settled = yield from self._ask_model(request, call.wanted, deadline, observation)
        except InvalidInput as exc:
            if not with_timings or _HAS_NO_TIMINGS not in str(exc):
                raise
            self._without_timings[call.model] = time.monotonic()
            refused = 1
            request = infer_request(call, files, request_id, with_timings=False)
            settled = yield from self._ask_model(request, call.wanted, deadline, observation)
        timings = _timings(began_s, observation, settled, refused=refused)
        return read_answers(call, _inferred(settled), len(files), request_id, timings)

    def _tells_timings(self, model: str) -> bool:
        """Whether the model may have an output `timings`; one that had none may have been replaced meanwhile."""
        refused_at = self._without_timings.get(model)
        return refused_at is None or time.monotonic() - refused_at > _ASK_AGAIN_S

    def _max_batch_size(self, call: Call, deadline: Deadline, observation: Observation) -> Program[int]:
        known = self._max_batch_sizes.get(call.model)
        if known is None:
            ask = Ask(Question.MODEL_CONFIG, call.model)
            settled = yield from self._ask_model(ask, call.wanted, deadline, observation)
            known = self._max_batch_sizes[call.model] = _understood(settled, read_max_batch_size)
        return known

    def _ask_model(
        self, request: Request, wanted: ModelKind | None, deadline: Deadline, observation: Observation
    ) -> Program[Settled]:
        """Converse; if the model is not there or not ready, say in the error what is, or why."""
        request_id = request.request_id if isinstance(request, Infer) else None
        try:
            return (yield from self.servers.converse(request, deadline, observation, request_id=request_id))
        except (ModelNotFound, ModelNotReady) as exc:
            error = exc
        try:
            left_s = deadline.remaining_s()
            limit_s = _EXPLAIN_TIMEOUT_S if left_s is None else min(left_s, _EXPLAIN_TIMEOUT_S)
            models = yield from self._models(Deadline(limit_s, clock=self.servers.clock), observation)
        except SketchbridgeError as exc:
            logger.debug("cannot list models urls=%s reason=%s", self.servers.urls, exc)
            raise error from error.__cause__
        raise explain(error, request.model, wanted, models) from error.__cause__

    def _models(self, deadline: Deadline, observation: Observation) -> Program[list[ModelInfo]]:
        settled = yield from self.servers.converse(Ask(Question.REPOSITORY_INDEX), deadline, observation)
        entries = _understood(settled, read_index)
        loaded = {entry.name for entry in entries if entry.state == "READY"}
        models = []
        for name in sorted({entry.name for entry in entries}):
            kind = ModelKind.UNKNOWN
            if name in loaded:
                kind = yield from self._kind(name, deadline, observation)
            models.append(summarise(name, entries, kind))
        return models

    def _kind(self, model: str, deadline: Deadline, observation: Observation) -> Program[ModelKind]:
        try:
            settled = yield from self.servers.converse(Ask(Question.MODEL_METADATA, model), deadline, observation)
        except (ModelNotFound, ModelNotReady):  # unloaded since the index was read
            return ModelKind.UNKNOWN
        return _understood(settled, read_kind)


def explain(
    error: ModelNotFound | ModelNotReady, model: str, wanted: ModelKind | None, models: Sequence[ModelInfo]
) -> ModelNotFound | ModelNotReady:
    """The same error with more in its message: the models that could have been meant, or why this one is not ready.

    wanted: the kind of model that was called; None for any.
    """
    context = {"status": error.status, "model": error.model, "request_id": error.request_id}
    if isinstance(error, ModelNotReady):
        reasons = [one.reason for one in models if one.name == model and one.reason]
        return ModelNotReady(" ".join([str(error), *(f"The server says: {reason}" for reason in reasons)]), **context)
    # A model of that name that is there lacks the version that was asked for.
    available = tuple(one.name for one in models if one.ready and wanted in {None, one.kind} and one.name != model)
    listed = ", ".join(f"`{name}`" for name in available) or "none"
    closest = difflib.get_close_matches(model, available, n=1)
    suggestion = f" Did you mean `{closest[0]}`?" if closest else ""
    of_this_kind = f" of this kind ({wanted.value})" if wanted else ""
    return ModelNotFound(f"{error} Models it has{of_this_kind}: {listed}.{suggestion}", available=available, **context)


def _inferred(settled: Settled) -> Inferred:
    assert isinstance(settled.reply, Inferred)  # noqa: S101  the transports answer each request in kind
    return settled.reply


def _understood(settled: Settled, read: Callable[[Mapping[str, Any]], T]) -> T:
    """What a question was answered with. Raises ResponseInvalid."""
    assert isinstance(settled.reply, Mapping)  # noqa: S101  the transports answer each request in kind
    try:
        return read(settled.reply)
    except (AttributeError, TypeError, ValueError) as exc:
        raise ResponseInvalid(f"What the server says of its models cannot be read: {exc}.") from exc


def _timings(began_s: float, observation: Observation, settled: Settled, *, refused: int = 0) -> Timings:
    """Where the time of a call went, now that a request of it is answered; `refused` were not before that."""
    told = told_in(_inferred(settled).outputs)
    total_s = time.perf_counter() - began_s
    return Timings(total_s, max(0.0, total_s - observation.sent_s), settled.tries + refused, told)


def _check_version(version: object) -> None:
    if not isinstance(version, str):
        raise InvalidArgument(
            f'`version` is {version!r}; expected a string such as "1", or "" for the server\'s choice.'
        )
    check_text("version", version)
