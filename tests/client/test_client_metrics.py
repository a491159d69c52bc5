from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from sketchbridge_client.errors import InvalidArgument, ModelNotFound, Overloaded
from sketchbridge_client.messages import Failed
from sketchbridge_client.metrics import MAX_MODELS, ClientMetrics
from sketchbridge_client.telemetry import Observation, Telemetry

PREFIX = "sketchbridge_client_"
URL = "127.0.0.1:8001"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def telemetry(registry: CollectorRegistry) -> Telemetry:
    return Telemetry(ClientMetrics(registry))


def begin(telemetry: Telemetry, model: str | None = "shoes", verb: str = "paint") -> Observation:
    return telemetry.begin(verb, model, uuid.uuid4().hex)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(PREFIX + name, labels)


def models_of(registry: CollectorRegistry) -> set[str]:
    return {
        sample.labels["model"]
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"{PREFIX}requests_total"
    }


def test_a_call_is_counted_by_what_came_of_it(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    begin(telemetry).ended(None)
    begin(telemetry).ended(Overloaded("too much"))
    begin(telemetry).ended(KeyboardInterrupt())
    for outcome in ("ok", "Overloaded", "KeyboardInterrupt"):
        assert value(registry, "requests_total", verb="paint", model="shoes", outcome=outcome) == 1
    assert value(registry, "request_seconds_count", verb="paint", model="shoes") == 3


def test_a_call_is_in_flight_until_it_ends_however_it_does(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    first, second = begin(telemetry), begin(telemetry)
    assert value(registry, "in_flight", verb="paint") == 2
    first.ended(ModelNotFound("none"))
    second.ended(None)
    assert value(registry, "in_flight", verb="paint") == 0


def test_tries_are_counted_at_once_by_their_status_and_hedges_beside_them(
    registry: CollectorRegistry, telemetry: Telemetry
) -> None:
    observation = begin(telemetry)
    observation.tried(Failed("UNAVAILABLE", "gone"), URL)
    observation.tried(Failed("UNAVAILABLE", "gone"), URL)
    observation.tried(Failed(None, "too long to send"), URL)
    observation.hedged()
    observation.tried(None, URL)
    for status, times in {"UNAVAILABLE": 2, "REFUSED": 1, "OK": 1}.items():
        assert value(registry, "tries_total", verb="paint", model="shoes", status=status) == times
    assert value(registry, "hedges_total", verb="paint", model="shoes") == 1
    assert value(registry, "requests_total", verb="paint", model="shoes", outcome="ok") is None


def test_a_call_about_no_model_has_an_empty_label(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    begin(telemetry, None, "models").ended(None)
    assert value(registry, "requests_total", verb="models", model="", outcome="ok") == 1


def test_the_buckets_reach_from_a_millisecond_to_a_minute(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    begin(telemetry).ended(None)
    bounds = [
        float(sample.labels["le"])
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"{PREFIX}request_seconds_bucket"
    ]
    assert bounds == sorted(bounds)
    assert (bounds[0], bounds[-2]) == (0.001, 60.0)


def test_after_a_hundred_unknown_models_the_rest_are_other(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    for number in range(MAX_MODELS + 50):
        begin(telemetry, f"guess {number}").ended(ModelNotFound("none"))
    assert len(models_of(registry)) == MAX_MODELS + 1
    assert value(registry, "requests_total", verb="paint", model="other", outcome="ModelNotFound") == 50
    assert value(registry, "requests_total", verb="paint", model="guess 0", outcome="ModelNotFound") == 1


def test_unknown_models_do_not_crowd_out_one_that_a_server_has(
    registry: CollectorRegistry, telemetry: Telemetry
) -> None:
    for number in range(MAX_MODELS + 1):
        begin(telemetry, f"guess {number}").ended(ModelNotFound("none"))
    begin(telemetry, "shoes").ended(None)
    begin(telemetry, "shoes").ended(Overloaded("too much"))
    assert value(registry, "requests_total", verb="paint", model="shoes", outcome="ok") == 1
    assert value(registry, "requests_total", verb="paint", model="shoes", outcome="Overloaded") == 1


def test_models_that_servers_have_are_bounded_too(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    for number in range(3 * MAX_MODELS):
        begin(telemetry, f"model {number}").ended(None)
    assert len(models_of(registry)) == 2 * MAX_MODELS + 1


def test_asking_whether_a_model_is_ready_makes_it_no_known_one(
    registry: CollectorRegistry, telemetry: Telemetry
) -> None:
    for number in range(3 * MAX_MODELS):
        begin(telemetry, f"guess {number}", "ready").ended(None)
    assert len(models_of(registry)) == MAX_MODELS + 1


@pytest.mark.parametrize("model", ["sho\ud800es", "x" * 129])
def test_a_name_that_could_not_be_read_off_is_other(
    registry: CollectorRegistry, telemetry: Telemetry, model: str
) -> None:
    begin(telemetry, model).ended(None)
    assert models_of(registry) == {"other"}
    assert b'model="other"' in prometheus_client.generate_latest(registry)


def test_what_is_exposed_can_be_read_again_by_prometheus(registry: CollectorRegistry, telemetry: Telemetry) -> None:
    observation = begin(telemetry, 'say "shoes"\\\n')
    observation.tried(None, URL)
    observation.hedged()
    observation.ended(None)
    families = {
        family.name: family
        for family in text_string_to_metric_families(prometheus_client.generate_latest(registry).decode())
        if not family.name.endswith("_created")
    }
    assert {(name, family.type) for name, family in families.items()} == {
        (f"{PREFIX}requests", "counter"),
        (f"{PREFIX}request_seconds", "histogram"),
        (f"{PREFIX}tries", "counter"),
        (f"{PREFIX}hedges", "counter"),
        (f"{PREFIX}in_flight", "gauge"),
    }
    assert families[f"{PREFIX}hedges"].samples[0].labels["model"] == 'say "shoes"\\\n'


def test_two_clients_in_many_threads_share_one_and_no_call_is_lost(registry: CollectorRegistry) -> None:
    metrics = ClientMetrics(registry)
    clients, together = (Telemetry(metrics), Telemetry(metrics)), threading.Barrier(8)

    def calls(number: int) -> None:
        together.wait()
        for index in range(50):
            begin(clients[number % 2], f"model {index}").ended(None)

    with ThreadPoolExecutor(8) as pool:
        for running in [pool.submit(calls, number) for number in range(8)]:
            running.result()
    assert models_of(registry) == {f"model {index}" for index in range(50)}
    for index in range(50):
        assert value(registry, "requests_total", verb="paint", model=f"model {index}", outcome="ok") == 8
    assert value(registry, "in_flight", verb="paint") == 0


def test_a_second_one_on_a_registry_is_refused_with_what_to_do(registry: CollectorRegistry) -> None:
    ClientMetrics(registry)
    with pytest.raises(InvalidArgument, match="share one ClientMetrics, or give each a registry of its own"):
        ClientMetrics(registry)


def test_a_registry_that_refuses_one_metric_takes_none(registry: CollectorRegistry) -> None:
    mine = Gauge(f"{PREFIX}in_flight", "somebody else's", registry=registry)
    with pytest.raises(InvalidArgument, match=f"{PREFIX}in_flight"):
        ClientMetrics(registry)
    registry.unregister(mine)
    ClientMetrics(registry)


def test_without_a_registry_the_one_of_the_process_is_used(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    begin(Telemetry(ClientMetrics())).ended(None)
    assert models_of(registry) == {"shoes"}


@pytest.mark.parametrize("wrong", ["default", 9090, CollectorRegistry])
def test_what_is_no_registry_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"`registry` is a .*; expected a prometheus_client\.CollectorRegistry"):
        ClientMetrics(wrong)


def test_without_prometheus_client_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(InvalidArgument, match=r"pip install 'sketchbridge\[metrics\]'"):
        ClientMetrics()


def test_processes_that_share_a_folder_of_metrics_are_added_up(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from prometheus_client import CollectorRegistry\n"
        "from sketchbridge_client.metrics import ClientMetrics\n"
        "from sketchbridge_client.telemetry import Telemetry\n"
        "telemetry = Telemetry(ClientMetrics(CollectorRegistry()))\n"
        "telemetry.begin('paint', 'shoes', '1' * 32).ended(None)\n"
        "telemetry.begin('paint', 'shoes', '2' * 32)\n"
    )
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], check=True)
    read = (
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from prometheus_client.multiprocess import MultiProcessCollector\n"
        "registry = CollectorRegistry()\n"
        "MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())\n"
    )
    found = subprocess.run([sys.executable, "-c", read], check=True, capture_output=True, text=True).stdout
    assert f'{PREFIX}requests_total{{model="shoes",outcome="ok",verb="paint"}} 2.0' in found
    assert f'{PREFIX}in_flight{{verb="paint"}} 2.0' in found
