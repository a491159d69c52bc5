from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry

from sketchbridge_client.errors import ModelNotFound, SketchbridgeError
from sketchbridge_client.messages import Failed
from sketchbridge_client.metrics import ClientMetrics
from sketchbridge_client.telemetry import Observation, Telemetry

TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
URL = "127.0.0.1:8001"


@pytest.fixture(autouse=True)
def _untraced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No provider and the propagators that are there by default, whatever was set before."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    propagator = propagate.get_global_textmap()
    yield
    propagate.set_global_textmap(propagator)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> TracerProvider:
    """The process's tracer provider, which can be set only once by OpenTelemetry's own means."""
    provider = TracerProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return provider


@pytest.fixture
def exporter(provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def begin(telemetry: Telemetry | None = None, *, model: str | None = "shoes") -> Observation:
    return (telemetry or Telemetry()).begin("paint", model, uuid.uuid4().hex)


def only_span(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def attributes_of(exporter: InMemorySpanExporter) -> dict[str, Any]:
    return dict(only_span(exporter).attributes or {})


def context_of(observation: Observation) -> trace.SpanContext:
    """What a server would make of the headers, by OpenTelemetry's own reading."""
    carrier = dict(observation.headers)
    return trace.get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()


def test_where_nothing_traces_the_request_id_is_the_trace_id_and_nothing_is_marked_as_recorded() -> None:
    request_id = uuid.uuid4().hex
    ((name, value),) = Telemetry().begin("paint", "shoes", request_id).headers
    assert name == "traceparent"
    assert TRACEPARENT.fullmatch(value)
    assert value.split("-")[1] == request_id
    assert value.endswith("-00")


def test_each_call_has_a_parent_id_of_its_own() -> None:
    telemetry = Telemetry()
    values = [telemetry.begin("paint", None, uuid.uuid4().hex).headers[0][1] for _ in range(100)]
    assert len({value.split("-")[2] for value in values}) == 100


def test_neither_opentelemetry_nor_prometheus_is_imported_by_the_sdk_or_by_a_call() -> None:
    code = (
        "import sys, sketchbridge_client, sketchbridge_client.metrics\n"
        "from sketchbridge_client.telemetry import Telemetry\n"
        "observation = Telemetry().begin('paint', 'shoes', '1' * 32)\n"
        "observation.ended(None)\n"
        "print(observation.headers[0][1][:36], [m for m in sys.modules if m.startswith(('opentel', 'prometheus'))])\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == f"00-{'1' * 32}- []"


def test_a_context_that_the_caller_was_given_is_passed_on_where_nothing_records() -> None:
    given = trace.SpanContext(
        0xABC, 0xDEF, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=trace.TraceState([("a", "b")])
    )
    with trace.use_span(trace.NonRecordingSpan(given)):
        observation = begin()
    observation.ended(None)
    assert dict(observation.headers) == {"traceparent": f"00-{0xABC:032x}-{0xDEF:016x}-01", "tracestate": "a=b"}


def test_a_provider_that_does_nothing_is_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    request_id = uuid.uuid4().hex
    assert f"{context_of(Telemetry().begin('paint', None, request_id)).trace_id:032x}" == request_id


def test_a_call_is_one_client_span_under_the_callers_own_and_the_server_is_told_of_it(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    with provider.get_tracer("the caller").start_as_current_span("shop") as shop:
        observation = Telemetry().begin("paint", "shoes", "5" * 32)
        observation.tried(None, URL)
        observation.ended(None)
    span = exporter.get_finished_spans()[0]
    assert (span.name, span.kind, span.status.status_code) == (
        "sketchbridge.paint",
        trace.SpanKind.CLIENT,
        trace.StatusCode.UNSET,
    )
    assert span.parent is not None
    assert span.parent.span_id == shop.get_span_context().span_id
    assert (context_of(observation).trace_id, context_of(observation).span_id) == (
        span.context.trace_id,
        span.context.span_id,
    )
    assert context_of(observation).trace_flags.sampled
    assert dict(span.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.response.status_code": "OK",
        "server.address": "127.0.0.1",
        "server.port": 8001,
        "sketchbridge.model": "shoes",
        "sketchbridge.request_id": "5" * 32,
        "sketchbridge.tries": 1,
        "sketchbridge.hedges": 0,
    }


def test_a_provider_that_is_set_after_the_client_was_made_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    telemetry = Telemetry()
    begin(telemetry).ended(None)
    for _ in range(2):
        exporter, provider = InMemorySpanExporter(), TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
        begin(telemetry).ended(None)
        assert only_span(exporter).name == "sketchbridge.paint"


def test_a_call_about_no_model_names_none(exporter: InMemorySpanExporter) -> None:
    begin(model=None).ended(None)
    assert "sketchbridge.model" not in attributes_of(exporter)


def test_each_failed_try_is_an_event_and_the_last_server_is_the_spans(exporter: InMemorySpanExporter) -> None:
    observation = begin()
    observation.tried(Failed("RESOURCE_EXHAUSTED", "too much", retry_after_s=1.5), "grpcs://one:8001")
    observation.tried(Failed(None, "too long"), "grpcs://one:8001")
    observation.hedged()
    observation.tried(None, "grpcs://two:8001")
    observation.ended(None)
    events = [(event.name, dict(event.attributes or {})) for event in only_span(exporter).events]
    one = {"rpc.system.name": "grpc", "server.address": "one", "server.port": 8001}
    busy = {"rpc.response.status_code": "RESOURCE_EXHAUSTED", "sketchbridge.retry_after_s": 1.5}
    assert events == [
        ("sketchbridge.try.failed", {**one, **busy, "sketchbridge.reason": "too much"}),
        ("sketchbridge.try.failed", {**one, "sketchbridge.reason": "too long"}),
        ("sketchbridge.hedged", {}),
    ]
    assert attributes_of(exporter)["server.address"] == "two"
    assert attributes_of(exporter)["sketchbridge.tries"] == 3
    assert attributes_of(exporter)["sketchbridge.hedges"] == 1


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:8001", ("grpc", "127.0.0.1", 8001)),
        ("triton:8001", ("grpc", "triton", 8001)),
        ("grpcs://triton.example:443", ("grpc", "triton.example", 443)),
        ("[::1]:8001", ("grpc", "::1", 8001)),
        ("dns:///triton:8001", ("grpc", "triton", 8001)),
        ("dns://8.8.8.8/triton:8001", ("grpc", "triton", 8001)),
        ("dns:triton:8001", ("grpc", "triton", 8001)),
        ("ipv4:10.0.0.1:80", ("grpc", "10.0.0.1", 80)),
        ("ipv6:[::1]:80", ("grpc", "::1", 80)),
        ("ipv4:10.0.0.1:80,10.0.0.2:80", ("grpc", "ipv4:10.0.0.1:80,10.0.0.2:80", None)),
        ("unix:///run/triton.sock", ("grpc", "/run/triton.sock", None)),
        ("unix:run/triton.sock", ("grpc", "run/triton.sock", None)),
        ("unix-abstract:triton", ("grpc", "triton", None)),
        ("http://triton:8000", ("http", "triton", 8000)),
        ("https://triton.example/prefix", ("http", "triton.example", None)),
    ],
)
def test_the_server_is_named_as_the_conventions_have_it(
    exporter: InMemorySpanExporter, target: str, expected: tuple[str, str, int | None]
) -> None:
    observation = begin()
    observation.tried(None, target)
    observation.ended(None)
    found = attributes_of(exporter)
    assert (found["rpc.system.name"], found["server.address"], found.get("server.port")) == expected


def test_an_error_of_ours_is_on_the_span_with_its_class_its_status_and_its_words(
    exporter: InMemorySpanExporter,
) -> None:
    begin().ended(ModelNotFound("There is no model `boots`.", status="NOT_FOUND"))
    span = only_span(exporter)
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "There is no model `boots`.")
    assert attributes_of(exporter)["error.type"] == "ModelNotFound"
    assert attributes_of(exporter)["rpc.response.status_code"] == "NOT_FOUND"


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), ValueError("token is hunter2")])
def test_of_another_error_only_the_class_is_kept_as_its_words_may_be_secret(
    exporter: InMemorySpanExporter, error: BaseException
) -> None:
    begin().ended(error)
    span = only_span(exporter)
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, None)
    assert attributes_of(exporter)["error.type"] == type(error).__name__
    assert "hunter2" not in span.to_json()


def test_a_call_that_is_sampled_out_is_not_exported_and_the_server_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    observation = begin()
    observation.tried(None, URL)
    observation.ended(None)
    assert exporter.get_finished_spans() == ()
    assert context_of(observation).is_valid
    assert not context_of(observation).trace_flags.sampled


def test_tracestate_and_baggage_go_along(exporter: InMemorySpanExporter) -> None:
    state = trace.TraceState([("vendor", "x")])
    given = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
    inside = baggage.set_baggage("tenant", "é 1", trace.set_span_in_context(trace.NonRecordingSpan(given)))
    token = context.attach(inside)
    try:
        observation = begin()
    finally:
        context.detach(token)
    sent = dict(observation.headers)
    assert (sent["tracestate"], sent["baggage"]) == ("vendor=x", "tenant=%C3%A9+1")
    assert context_of(observation).trace_id == 1


class OldPropagator(TextMapPropagator):
    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        raise NotImplementedError

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        span = trace.get_current_span(context).get_span_context()
        carrier.update({"X-B3-TraceId": f"{span.trace_id:032x}", "x-bad": "line\nbreak", "x bad": "1", "x-bin": "1"})

    @property
    def fields(self) -> set[str]:
        return {"X-B3-TraceId"}


def test_another_propagator_has_its_headers_in_lower_case_and_a_traceparent_beside_them(
    exporter: InMemorySpanExporter,
) -> None:
    propagate.set_global_textmap(OldPropagator())
    observation = begin()
    observation.ended(None)
    trace_id = f"{only_span(exporter).context.trace_id:032x}"
    assert [name for name, _ in observation.headers] == ["x-b3-traceid", "traceparent"]
    assert dict(observation.headers)["x-b3-traceid"] == trace_id
    assert context_of(observation).trace_id == int(trace_id, 16)


def test_no_propagator_at_all_sends_a_traceparent_still(exporter: InMemorySpanExporter) -> None:
    propagate.set_global_textmap(CompositePropagator([]))
    observation = begin()
    observation.ended(None)
    assert TRACEPARENT.fullmatch(dict(observation.headers)["traceparent"])


def test_no_span_is_left_current_by_a_call_that_begins_in_one_task_and_ends_in_another(
    exporter: InMemorySpanExporter,
) -> None:
    async def elsewhere(observation: Observation) -> None:
        observation.tried(None, URL)
        observation.ended(None)

    async def call() -> None:
        observation = begin()
        assert trace.get_current_span() is trace.INVALID_SPAN
        await asyncio.create_task(elsewhere(observation))
        assert trace.get_current_span() is trace.INVALID_SPAN

    asyncio.run(call())
    assert only_span(exporter).status.status_code is trace.StatusCode.UNSET


def test_calls_at_the_same_time_are_each_under_their_own_caller(
    provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    telemetry, tracer = Telemetry(), provider.get_tracer("the caller")

    async def call(number: int) -> None:
        with tracer.start_as_current_span(f"caller {number}"):
            observation = telemetry.begin("paint", str(number), uuid.uuid4().hex)
            await asyncio.sleep(0)
            observation.ended(None)

    async def calls() -> None:
        await asyncio.gather(*(call(number) for number in range(20)))

    asyncio.run(calls())
    spans = exporter.get_finished_spans()
    callers = {span.context.span_id: span.name for span in spans if span.parent is None}
    found = {
        (callers[span.parent.span_id], (span.attributes or {})["sketchbridge.model"])
        for span in spans
        if span.parent is not None
    }
    assert found == {(f"caller {number}", str(number)) for number in range(20)}


def test_threads_that_share_a_call_lose_none_of_its_tries(exporter: InMemorySpanExporter) -> None:
    observation, together = begin(), threading.Barrier(8)

    def tries() -> None:
        together.wait()
        for _ in range(10):
            observation.tried(Failed("UNAVAILABLE", "gone"), URL)

    with ThreadPoolExecutor(8) as pool:
        for running in [pool.submit(tries) for _ in range(8)]:
            running.result()
    observation.ended(None)
    assert attributes_of(exporter)["sketchbridge.tries"] == 80
    assert len(only_span(exporter).events) == 80


def test_what_is_said_after_the_end_changes_nothing(
    exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    observation = begin()
    observation.tried(None, URL)
    observation.ended(None)
    before = only_span(exporter).to_json()
    observation.tried(Failed("CANCELLED", "the slower copy"), URL)
    observation.hedged()
    assert only_span(exporter).to_json() == before
    assert caplog.records == []


def test_words_that_cannot_be_written_or_never_end_are_made_so_that_they_can(exporter: InMemorySpanExporter) -> None:
    observation = begin(model="sho\ud800es")
    observation.tried(Failed("INTERNAL", "a" * 100_000), URL)
    observation.ended(SketchbridgeError("b" * 100_000))
    span = only_span(exporter)
    assert attributes_of(exporter)["sketchbridge.model"] == "sho?es"
    assert len(span.to_json()) < 5000


@pytest.mark.parametrize("where", ["on_start", "on_end"])
def test_a_processor_that_breaks_does_not_break_the_call(
    provider: TracerProvider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the collector is on fire")

    processor = SpanProcessor()
    monkeypatch.setattr(processor, where, broken)
    provider.add_span_processor(processor)
    with caplog.at_level(logging.WARNING):
        observation = begin()
        observation.ended(None)
    assert TRACEPARENT.fullmatch(observation.headers[0][1])
    assert [record.message for record in caplog.records] == ["telemetry failed; the call goes on"]


def test_a_call_is_counted_and_traced_at_once(exporter: InMemorySpanExporter) -> None:
    registry = CollectorRegistry()
    observation = begin(Telemetry(ClientMetrics(registry)))
    observation.tried(None, URL)
    observation.ended(None)
    assert only_span(exporter).name == "sketchbridge.paint"
    labels = {"verb": "paint", "model": "shoes", "outcome": "ok"}
    assert registry.get_sample_value("sketchbridge_client_requests_total", labels) == 1
