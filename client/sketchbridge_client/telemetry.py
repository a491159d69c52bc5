"""What is told about each call of a verb: a trace context to the server, a span to OpenTelemetry, counts to Prometheus.

Every request carries a W3C `traceparent` (https://www.w3.org/TR/trace-context/). Where the process traces, which is
where OpenTelemetry has a tracer provider, it is that of a span of kind CLIENT, "sketchbridge.<verb>", one for each call
however many tries it takes, under the caller's current span, and the propagator that the process has configured writes
the headers, baggage too. Where it only has a current span context, that is passed on.

Else it is one of our own: the request id is the trace id, so that one id finds a call in the logs and in the traces of
the server; its second half is the parent id; the flags are 00, as nothing was recorded here. A Triton with
`--trace-config mode=opentelemetry` traces every request that carries any of these, whatever its rate is set to.

OpenTelemetry is never imported before the process itself has: until then it cannot have a provider.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from sketchbridge_client.errors import SketchbridgeError
from sketchbridge_client.messages import Failed, Headers
from sketchbridge_client.metrics import ClientMetrics

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext, Tracer, TracerProvider

logger = logging.getLogger(__name__)

_HEADER_NAME = re.compile(r"[a-z0-9_.-]+")
_LOCAL_TARGET = re.compile(r"unix(?:-abstract)?:(?://)?")
_TARGET_PREFIX = re.compile(r"dns:(?://[^/]*/)?|ipv[46]:/*|[a-z]+://")
_TELEMETRY_FAILED = "telemetry failed; the call goes on"
_LONGEST_TEXT = 1000  # characters; a server may answer with a whole traceback


class Watcher(Protocol):
    """What is told how one call goes."""

    def tried(self, failed: Failed | None, target: str) -> None:
        """A try ended. failed: None if it was answered."""

    def hedged(self) -> None:
        """A second copy was sent."""

    def ended(self, error: BaseException | None) -> None:
        """The call ended. Told once."""


class Observation:
    """One call of a verb. Threads may share it. Nothing of it raises: a call does not fail because it is watched.

    headers: what goes with each try of the call; at least a `traceparent`. sent_s: seconds that its requests were on
    their way, all tries of all of them, for whoever sends them to add to.
    """

    __slots__ = ("_watchers", "headers", "sent_s")

    def __init__(self, headers: Headers, watchers: tuple[Watcher, ...] = ()) -> None:
        self.headers = headers
        self.sent_s = 0.0
        self._watchers = watchers

    def tried(self, failed: Failed | None, target: str) -> None:
        """Say that a try ended. failed: None if it was answered. target: the address it was sent to."""
        for watcher in self._watchers:
            _tell(watcher.tried, failed, target)

    def hedged(self) -> None:
        """Say that a second copy was sent."""
        for watcher in self._watchers:
            _tell(watcher.hedged)

    def ended(self, error: BaseException | None) -> None:
        """Say what came of the call, once: None for an answer, else what was raised, be it a cancellation."""
        for watcher in self._watchers:
            _tell(watcher.ended, error)


class Telemetry:
    """Begins an observation of each call. Threads and event loops may share it.

    metrics: where to count the calls; None counts nothing. Spans have no switch here: they are made where the process
    traces.
    """

    def __init__(self, metrics: ClientMetrics | None = None) -> None:
        self._metrics = metrics
        self._provider_and_tracer: tuple[TracerProvider, Tracer] | None = None  # one value, so threads cannot mix them

    def begin(self, verb: str, model: str | None, request_id: str) -> Observation:
        """Observe a call that begins now.

        verb: such as "paint". model: None if it is about no model. request_id: 32 random lower-case hex digits.
        """
        headers: Headers = ()
        watchers: tuple[Watcher, ...] = ()
        try:
            if self._metrics is not None:
                watchers = (self._metrics.begin(verb, model),)
            if sys.modules.get("opentelemetry.trace") is not None:
                headers, traced = self._trace(verb, model, request_id)
                watchers += traced
        except Exception:  # noqa: BLE001  samplers, processors and propagators are anybody's code
            logger.warning(_TELEMETRY_FAILED, exc_info=True)
        return Observation(headers or (("traceparent", f"00-{request_id}-{request_id[16:]}-00"),), watchers)

    def _trace(self, verb: str, model: str | None, request_id: str) -> tuple[Headers, tuple[Watcher, ...]]:
        """The headers of the call's span, and the span if it is recorded; no headers if there is no valid context."""
        from opentelemetry import trace  # noqa: PLC0415  an extra

        provider = trace.get_tracer_provider()
        if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
            current = trace.get_current_span()
            return _injected(current) if current.get_span_context().is_valid else (), ()
        # Never made current: that would have to be undone in the same task, and a call may end in another one.
        span = self._tracer(provider).start_span(
            f"sketchbridge.{verb}",
            kind=trace.SpanKind.CLIENT,
            attributes={
                "sketchbridge.request_id": _text(request_id),
                **({} if model is None else {"sketchbridge.model": _text(model)}),
            },
        )
        headers = _injected(span) if span.get_span_context().is_valid else ()
        return headers, (_TracedCall(span),) if span.is_recording() else ()

    def _tracer(self, provider: TracerProvider) -> Tracer:
        known = self._provider_and_tracer
        if known is None or known[0] is not provider:
            known = (provider, provider.get_tracer("sketchbridge_client"))
            self._provider_and_tracer = known
        return known[1]


class _TracedCall:
    """One call with a span that is recorded."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._tries = 0
        self._hedges = 0
        self._ended = False
        self._lock = threading.Lock()

    def tried(self, failed: Failed | None, target: str) -> None:
        server = _server(target)
        with self._lock:
            if self._ended:  # the slower one of two copies
                return
            self._tries += 1
            self._span.set_attributes(server)
            if failed is not None:
                self._span.add_event("sketchbridge.try.failed", {**server, **_failure(failed)})

    def hedged(self) -> None:
        with self._lock:
            if self._ended:
                return
            self._hedges += 1
            self._span.add_event("sketchbridge.hedged")

    def ended(self, error: BaseException | None) -> None:
        from opentelemetry.trace import StatusCode  # noqa: PLC0415  an extra

        status = "OK" if error is None else getattr(error, "status", None)
        with self._lock:
            self._ended = True
            self._span.set_attributes({"sketchbridge.tries": self._tries, "sketchbridge.hedges": self._hedges})
        try:
            if isinstance(status, str):
                self._span.set_attribute("rpc.response.status_code", status)
            if error is not None:
                self._span.set_attribute("error.type", type(error).__qualname__)
                # Our own messages have no credentials in them; of others, such as a token callback's, nobody knows.
                ours = isinstance(error, SketchbridgeError)
                self._span.set_status(StatusCode.ERROR, _text(str(error)) if ours else None)
        finally:
            self._span.end()


def _injected(span: Span) -> Headers:
    """What the process's propagator writes of the span and the current context, and a traceparent in any case."""
    from opentelemetry import propagate, trace  # noqa: PLC0415  an extra

    carrier: dict[str, str] = {}
    propagate.inject(carrier, trace.set_span_in_context(span))
    headers = {name.lower(): value for name, value in carrier.items()}
    headers.setdefault("traceparent", _traceparent(span.get_span_context()))
    return tuple((name, value) for name, value in headers.items() if _can_be_header(name, value))


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"


def _can_be_header(name: str, value: str) -> bool:
    named = _HEADER_NAME.fullmatch(name) and not name.endswith("-bin")
    return bool(named) and value.isascii() and value.isprintable()


@lru_cache(maxsize=256)
def _server(target: str) -> Mapping[str, str | int]:
    """An address as the semantic conventions have it; rpc.system.name is "http" for KServe's protocol over HTTP."""
    system = "http" if target.startswith(("http://", "https://")) else "grpc"
    if local := _LOCAL_TARGET.match(target):
        return {"rpc.system.name": system, "server.address": target[local.end() :]}
    try:
        parts = urlsplit(f"//{_TARGET_PREFIX.sub('', target, count=1)}")
        address, port = parts.hostname or target, parts.port
    except ValueError:  # several addresses in one, as gRPC's ipv4: takes them
        address, port = target, None
    return {"rpc.system.name": system, "server.address": address, **({} if port is None else {"server.port": port})}


def _failure(failed: Failed) -> Mapping[str, str | float]:
    found: dict[str, str | float] = {"sketchbridge.reason": _text(failed.words)}
    if failed.code is not None:
        found["rpc.response.status_code"] = failed.code
    if failed.retry_after_s is not None:
        found["sketchbridge.retry_after_s"] = failed.retry_after_s
    return found


def _text(value: str) -> str:
    """Text that every exporter can write, cut to what is worth keeping."""
    return value[:_LONGEST_TEXT].encode("utf-8", "replace").decode("utf-8")


def _tell(what: Callable[..., None], *arguments: Any) -> None:
    try:
        what(*arguments)
    except Exception:  # noqa: BLE001  processors and exporters are anybody's code
        logger.warning(_TELEMETRY_FAILED, exc_info=True)
