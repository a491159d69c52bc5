"""What Prometheus is told about the calls of this side. It needs the extra `metrics`; importing this module does not.

    sketchbridge_client_requests_total{verb, model, outcome}   calls that ended; outcome: "ok", or the error's class
    sketchbridge_client_request_seconds{verb, model}           histogram: from the call to its end, all tries together
    sketchbridge_client_tries_total{verb, model, status}       tries that ended, by gRPC's status; "REFUSED": not sent
    sketchbridge_client_hedges_total{verb, model}              second copies sent because the first was slow
    sketchbridge_client_in_flight{verb}                        calls that have begun and not ended

A call that is not answered at once, or is about many pictures, takes several tries. Of two copies of a request only the
one that the caller got counts as a try.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sketchbridge_client.errors import InvalidArgument
from sketchbridge_client.messages import Failed

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

MAX_MODELS = 100
"""The most models that have a label for being answered for, and the most that have one without."""

OTHER_MODELS = "other"
"""The label of all models beyond those."""

_TAKES_ANY_NAME = "ready"  # the one verb that answers, with False, for a model that no server has
_LONGEST_LABEL = 128  # characters
_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class ClientMetrics:
    """Counts calls in a registry of prometheus-client. Clients and threads may share one.

    registry: where the metrics are read from; None for prometheus_client.REGISTRY, which a process serves by default.

    Model names come from callers, so their number is bounded: 100 that a server has answered for and 100 others have
    labels of their own, the rest are "other". A call about no model has the label "".

    Raises InvalidArgument if prometheus-client is not installed, or the registry has such metrics already.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        try:
            import prometheus_client as prometheus  # noqa: PLC0415  an extra
        except ImportError as exc:
            raise InvalidArgument(
                "Metrics need prometheus-client, which is not installed. Run `pip install 'sketchbridge[metrics]'`."
            ) from exc
        if registry is None:
            registry = prometheus.REGISTRY
        elif not isinstance(registry, prometheus.CollectorRegistry):
            raise InvalidArgument(
                f"`registry` is a {type(registry).__qualname__}; expected a prometheus_client.CollectorRegistry, or "
                "None for the one of the process."
            )
        self._instruments = _Instruments(
            requests=prometheus.Counter(
                "sketchbridge_client_requests_total",
                "Calls that ended, by what came of them.",
                ("verb", "model", "outcome"),
                registry=None,
            ),
            request_seconds=prometheus.Histogram(
                "sketchbridge_client_request_seconds",
                "Time from a call to its end, all tries together.",
                ("verb", "model"),
                buckets=_BUCKETS_S,
                registry=None,
            ),
            tries=prometheus.Counter(
                "sketchbridge_client_tries_total",
                "Tries that ended, by gRPC status; REFUSED for what this side would not send.",
                ("verb", "model", "status"),
                registry=None,
            ),
            hedges=prometheus.Counter(
                "sketchbridge_client_hedges_total",
                "Second copies of a request, sent because the first was slow.",
                ("verb", "model"),
                registry=None,
            ),
            in_flight=prometheus.Gauge(
                "sketchbridge_client_in_flight",
                "Calls that have begun and not ended.",
                ("verb",),
                registry=None,
                multiprocess_mode="livesum",
            ),
        )
        try:
            registry.register(self._instruments)
        except ValueError as exc:
            raise InvalidArgument(
                f"This registry has metrics of a client already ({exc}). Let the clients share one ClientMetrics, or "
                "give each a registry of its own."
            ) from exc

    def begin(self, verb: str, model: str | None) -> MeasuredCall:
        """Count a call that begins now. model: None if it is about no model."""
        return MeasuredCall(self._instruments, verb, model)


class MeasuredCall:
    """One call while it is counted. Threads may share it."""

    __slots__ = ("_began_s", "_instruments", "_model", "_verb")

    def __init__(self, instruments: _Instruments, verb: str, model: str | None) -> None:
        self._instruments = instruments
        self._verb = verb
        self._model = model
        self._began_s = time.perf_counter()
        instruments.in_flight.labels(verb).inc()

    def tried(self, failed: Failed | None, target: str) -> None:  # noqa: ARG002  one label for each would be many
        """Count a try. failed: None if it was answered."""
        status = "OK" if failed is None else failed.code or "REFUSED"
        self._instruments.tries.labels(self._verb, self._label(), status).inc()

    def hedged(self) -> None:
        """Count a second copy."""
        self._instruments.hedges.labels(self._verb, self._label()).inc()

    def ended(self, error: BaseException | None) -> None:
        """Count the call."""
        duration_s = time.perf_counter() - self._began_s
        self._instruments.in_flight.labels(self._verb).dec()
        label = self._label(answered=error is None and self._verb != _TAKES_ANY_NAME)
        outcome = "ok" if error is None else type(error).__name__
        self._instruments.requests.labels(self._verb, label, outcome).inc()
        self._instruments.request_seconds.labels(self._verb, label).observe(duration_s)

    def _label(self, *, answered: bool = False) -> str:
        return "" if self._model is None else self._instruments.models.label(self._model, answered=answered)


class _Models:
    """Which models have a label. Those that were answered for cannot be crowded out by names that nobody has."""

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._others: set[str] = set()
        self._lock = threading.Lock()

    def label(self, model: str, *, answered: bool) -> str:
        if model in self._answered:
            return model
        with self._lock:
            if answered and _add(self._answered, model):
                return model
            return model if _add(self._others, model) else OTHER_MODELS


def _add(names: set[str], name: str) -> bool:
    """Whether the name has a place among `names`, which it takes if there is room."""
    if name not in names and len(names) < MAX_MODELS and _can_be_label(name):
        names.add(name)
    return name in names


def _can_be_label(name: str) -> bool:
    """Whether it is short, and text that can be written; half a surrogate pair would break every later scrape."""
    return len(name) <= _LONGEST_LABEL and not any("\ud800" <= character <= "\udfff" for character in name)


@dataclass(frozen=True, eq=False)
class _Instruments:
    """All metrics as one collector, so that a registry takes either all of them or none."""

    requests: Counter
    request_seconds: Histogram
    tries: Counter
    hedges: Counter
    in_flight: Gauge
    models: _Models = field(default_factory=_Models)

    def describe(self) -> Iterator[Metric]:
        for metric in (self.requests, self.request_seconds, self.tries, self.hedges, self.in_flight):
            yield from metric.describe()

    def collect(self) -> Iterator[Metric]:
        for metric in (self.requests, self.request_seconds, self.tries, self.hedges, self.in_flight):
            yield from metric.collect()
