"""Where secrets may go: not in the clear across a network, and into nothing that is shown."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from sketchbridge_client import NEVER, InvalidArgument, SketchbridgeError
from sketchbridge_client.metrics import ClientMetrics
from sketchbridge_client.targets import Credentials

TOKEN, API_KEY, PASSWORD = "t0ken-mine", "k3y-mine", "p4ssword-mine"


SECRETS: list[dict[str, Any]] = [
    {"token": TOKEN},
    {"token": lambda: TOKEN},
    {"api_key": API_KEY},
    {"headers": {"Authorization": "Basic abc"}},
    {"headers": {"Cookie": "session=abc"}},
]


@pytest.mark.parametrize("options", SECRETS)
@pytest.mark.parametrize(
    "url",
    [
        "triton:8001",
        "10.0.0.2:8001",
        "[2001:db8::1]:8001",
        "grpc://triton:8001",
        "http://triton:8000",
        "http://localhost.example:8000",
        "dns:///triton:8001",
        "dns://127.0.0.53:53/triton:8001",
        "ipv4:127.0.0.1:8001,10.0.0.2:8001",
        "ipv6:[::1]:8001,[2001:db8::1]:8001",
        ["127.0.0.1:8001", "10.0.0.2:8001"],
    ],
)
def test_a_secret_does_not_cross_a_network_in_the_clear_unless_the_caller_says_so(
    kind: Any, url: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidArgument, match="would cross the network in the clear"):
        kind(url, **options)
    with kind(url, **options, plaintext_credentials=True):
        pass


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8001",
        "127.9.9.9:8001",
        "localhost:8001",
        "LOCALHOST:8001",
        "[::1]:8001",
        "grpc://localhost:8001",
        "http://localhost:8000",
        "http://127.0.0.1/triton",
        "http://[::1]",
        "unix:/run/triton.sock",
        "unix-abstract:triton",
        "dns:///localhost:8001",
        "dns:localhost:8001",
        "dns://8.8.8.8:53/localhost:8001",
        "ipv4:127.0.0.1:8001,127.0.0.2:8001",
        "ipv6:[::1]:8001",
        "grpcs://triton:8001",
        "https://triton",
    ],
)
def test_a_secret_may_stay_on_this_machine_or_go_encrypted(kind: Any, url: str) -> None:
    with kind(url, token=TOKEN):
        pass


def test_headers_without_a_secret_may_go_in_the_clear(kind: Any) -> None:
    with kind("triton:8001", headers={"x-tenant": "a"}):
        pass


def test_what_is_for_this_machine_goes_through_no_proxy(
    way: Any, noting: Any, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with way.kind(noting.url, token=TOKEN) as client:
        assert client.live()


def test_nothing_of_the_credentials_is_shown_anywhere(
    way: Any, noting: Any, closed_port: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter, provider, registry = InMemorySpanExporter(), TracerProvider(), CollectorRegistry()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    metrics = ClientMetrics(registry=registry)
    for url in (noting.url, f"{way.protocol}://127.0.0.1:{closed_port}"):
        for token in (TOKEN, lambda: TOKEN):
            options = {"token": token, "api_key": API_KEY, "headers": {"x-password": PASSWORD}}
            with way.kind(url, **options, retry=NEVER, metrics=metrics) as client:
                shown += [repr(client), str(client), repr(vars(getattr(client, "inner", client)))]
                shown += [word for call in calls_of(client) for word in told_by(call)]
    shown += [span.to_json() for span in exporter.get_finished_spans()]
    shown += [caplog.text, generate_latest(registry).decode(), repr(Credentials(TOKEN, API_KEY, {"x-p": PASSWORD}))]
    assert len(exporter.get_finished_spans()) == 16
    for secret in (TOKEN, API_KEY, PASSWORD):
        assert not [text for text in shown if secret in text]


def calls_of(client: Any) -> list[Callable[[], Any]]:
    return [client.live, client.models, lambda: client.model("shoes"), lambda: client.paint(b"x")]


def told_by(call: Callable[[], Any]) -> list[str]:
    """All that a caller may see of a call."""
    try:
        return [repr(call())]
    except SketchbridgeError as exc:
        return [repr(exc), str(exc), repr(pickle.dumps(exc)), "".join(traceback.format_exception(exc))]
