"""`sketchbridge serve` without its flags: start, say what is served, wait, drain."""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING

from sketchbridge_server.errors import ServerDied, StartCancelled
from sketchbridge_server.health import Role
from sketchbridge_server.log import NO_GPU
from sketchbridge_server.triton import TritonServer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType, TracebackType

    from typing_extensions import Self

    from sketchbridge_server.config import Endpoints, ServerConfig
    from sketchbridge_server.health import ServedModel

logger = logging.getLogger(__name__)

WATCH_INTERVAL_S = 0.2
# Requests to a dead process never finish; the other models' get this long before everything is killed.
GRACE_AFTER_DEATH_S = 5

_ROLE_TITLES = {Role.ENSEMBLE: "Pipelines", Role.GENERATOR: "Generators", Role.BUILDING_BLOCK: "Building blocks"}


class StopSignals:
    """Counts SIGTERM and SIGINT instead of ending the process, while it is entered. For the main thread only."""

    def __init__(self) -> None:
        self.count = 0
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._count)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def stop_wanted(self) -> bool:
        """Whether any signal came."""
        return self.count > 0

    def hurry_wanted(self) -> bool:
        """Whether a second signal came."""
        return self.count > 1

    def _count(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


def serve(config: ServerConfig, *, write: Callable[[str], None]) -> bool:
    """Serve until SIGTERM or Ctrl-C, then let requests in flight finish; a second signal kills at once.

    write: takes each text for the person who started it, without a newline at its end.
    Returns whether the stop was clean: False if requests may have been cut off.
    Raises the ServeErrors of `TritonServer.start` and `wait_until_ready` but for StartCancelled, which is a clean stop;
    and ServerDied if the server or a model's process ended by itself.
    """
    with StopSignals() as signals:
        started = time.monotonic()
        server = TritonServer(config)
        server.start()
        try:
            models = server.wait_until_ready(cancelled=signals.stop_wanted)
            write(announcement(models, server.endpoints, seconds=time.monotonic() - started, no_gpu=server.has_no_gpu))
            while not signals.stop_wanted():
                server.check_alive()
                time.sleep(WATCH_INTERVAL_S)
            write(f"Stopping: requests in flight get up to {config.grace_period_s} s. Ctrl-C again kills them.")
            clean = server.stop(hurried=signals.hurry_wanted)
        except StartCancelled:
            clean = True
        except ServerDied:
            server.stop(grace_period_s=GRACE_AFTER_DEATH_S, hurried=signals.stop_wanted)
            raise
        finally:
            server.stop(grace_period_s=0)
        write("Stopped." if clean else "Stopped before all requests had finished.")
        return clean


def announcement(models: Sequence[ServedModel], endpoints: Endpoints, *, seconds: float, no_gpu: bool) -> str:
    """What a person needs to know of a server that has just become ready: where it is, what it serves, how to call it.

    seconds: how long the start took.
    """
    lines = [
        *([NO_GPU] if no_gpu else []),
        f"Ready after {seconds:.1f} s. HTTP {endpoints.http_url}, gRPC {endpoints.grpc_url}, "
        f"metrics {endpoints.metrics_url}",
    ]
    width = max(map(len, _ROLE_TITLES.values()))
    for role, title in _ROLE_TITLES.items():
        described = [f"{model.name} ({'v' + ', v'.join(model.versions)})" for model in models if model.role is role]
        if described:
            lines.append(f"  {title:<{width}}  {', '.join(described)}")
    painter = next((model for model in models if model.role is Role.ENSEMBLE and model.inputs == ("sketch",)), None)
    if painter is not None:
        lines += ["Call it:", *(f"  {line}" for line in how_to_call(painter.name, endpoints))]
    return "\n".join(lines)


def how_to_call(name: str, endpoints: Endpoints) -> list[str]:
    """Three lines for a shell: our command, plain HTTP, and Python; `name` is an ensemble from a sketch to a photo.

    The HTTP line is Triton's raw binary request: the body is the picture. The answer is a JSON header, four bytes of
    length, and the photo; perl cuts it out. A refusal makes no photo: curl says so, and `answer` why.
    """
    return [
        f"sketchbridge paint sketch.png --model {name} --url {endpoints.grpc_url} --output photo.png",
        "curl -sS --fail-with-body --data-binary @sketch.png -H 'Inference-Header-Content-Length: 0' "
        f"{endpoints.http_url}/v2/models/{name}/infer -o answer && "
        "perl -0777 -pe 's/^.*?}]}....//s' answer > photo.png",
        "python -c 'from sketchbridge_client import Client; "
        f'Client("{endpoints.grpc_url}").paint("sketch.png", model="{name}").save("photo.png")\'',
    ]
