"""How a server is started: the frozen settings, and the command line made of them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sketchbridge_server.errors import InvalidConfiguration

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_ADDRESS = "127.0.0.1"
DEFAULT_HTTP_PORT = 8000
DEFAULT_GRPC_PORT = 8001
DEFAULT_METRICS_PORT = 8002
DEFAULT_READY_TIMEOUT_S = 120.0
DEFAULT_GRACE_PERIOD_S = 30
EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 - only compared with
LARGEST_PORT = 65535

# Anyone who can reach a port could otherwise have Triton map shared memory of this machine, write trace files to
# any path, or switch its log off. Nothing of ours calls these, so they are locked with a key made up at each start.
# That is against the network only: Triton takes the key as an argument, which users of this machine see in /proc.
# The index of models, configurations, metadata, statistics and health stay open: clients and load tests read them, and
# `--model-control-mode=none` refuses to load or unload anything whoever asks.
RESTRICTED_APIS = "shared-memory,trace,logging"


@dataclass(frozen=True)
class ServerConfig:
    """Settings of one server.

    repositories: model repositories, one or more; a model name may occur in one of them only.
    address: where all three ports listen, an IPv4 address or a name of this machine. Anything but 127.0.0.1 is open to
        the network without a password, and Triton has no limit on the size of a request (200 MB to a model that refuses
        it still take as much of /dev/shm, for good): put a gateway in front that asks who it is and caps the body.
    http_port, grpc_port, metrics_port: 0 picks a free one (`TritonServer.endpoints` says which).
    model_config_name: `gpu` serves `<model>/configs/gpu.pbtxt` where a model has one; None serves `config.pbtxt`.
    ready_timeout_s: how long all models may take to load, in seconds.
    grace_period_s: how long `stop` lets requests in flight finish, in whole seconds (Triton counts so).
    log_path: keeps Triton's whole log in this file as well (appended); None keeps the last lines in memory only.
    refuse_expired: whether a step of an ensemble refuses a request whose `timeout` is over (see `deadlines`) rather
        than work for nobody. False is there to measure what that is worth.
    Raises InvalidConfiguration for values that cannot be meant.

    Pictures never go into Triton's response cache: they are the callers', and equal requests are rare.
    """

    repositories: tuple[Path, ...]
    address: str = DEFAULT_ADDRESS
    http_port: int = DEFAULT_HTTP_PORT
    grpc_port: int = DEFAULT_GRPC_PORT
    metrics_port: int = DEFAULT_METRICS_PORT
    model_config_name: str | None = None
    ready_timeout_s: float = DEFAULT_READY_TIMEOUT_S
    grace_period_s: int = DEFAULT_GRACE_PERIOD_S
    log_path: Path | None = None
    refuse_expired: bool = True

    def __post_init__(self) -> None:
        if not self.repositories:
            raise InvalidConfiguration("no model repository was given; name at least one folder, as ./model_repository")
        ports = {"http_port": self.http_port, "grpc_port": self.grpc_port, "metrics_port": self.metrics_port}
        for name, port in ports.items():
            if not 0 <= port <= LARGEST_PORT:
                raise InvalidConfiguration(f"{name} is {port}; a port is 1 to {LARGEST_PORT}, or 0 for a free one")
        chosen = [port for port in ports.values() if port]
        if len(set(chosen)) < len(chosen):
            raise InvalidConfiguration(f"HTTP, gRPC and metrics need ports of their own; got {ports}")
        if not self.ready_timeout_s > 0:  # NaN too
            raise InvalidConfiguration(f"ready_timeout_s is {self.ready_timeout_s}; it must be more than 0 seconds")
        if self.grace_period_s < 0:
            raise InvalidConfiguration(f"grace_period_s is {self.grace_period_s}; it must be 0 seconds or more")
        if self.model_config_name is not None and (not self.model_config_name or " " in self.model_config_name):
            raise InvalidConfiguration(
                f"model_config_name is {self.model_config_name!r}; it is a file name without spaces, as `gpu`"
            )


@dataclass(frozen=True)
class Endpoints:
    """Where a running server is reached from this machine.

    address: where it listens, as numbers. Ports are the real ones.
    """

    address: str
    http_port: int
    grpc_port: int
    metrics_port: int

    @property
    def host(self) -> str:
        """The address to connect to: the loopback where the server listens on every interface."""
        return "127.0.0.1" if self.address == EVERY_INTERFACE else self.address

    @property
    def http_url(self) -> str:
        """As http://127.0.0.1:8000."""
        return f"http://{self.host}:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        """As 127.0.0.1:8001, the way gRPC clients want it."""
        return f"{self.host}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """As http://127.0.0.1:8002/metrics."""
        return f"http://{self.host}:{self.metrics_port}/metrics"


def check_repositories(repositories: Sequence[Path]) -> None:
    """Ask that each repository is a folder with at least one model, and that no name occurs twice.

    Raises InvalidConfiguration with the folder and what to do.
    """
    owners: dict[str, Path] = {}
    for repository in repositories:
        if not repository.is_dir():
            what = "is not a folder" if repository.exists() else "does not exist"
            raise InvalidConfiguration(f"model repository {repository} {what}; give its path with --repository")
        names = model_names(repository)
        if not names:
            raise InvalidConfiguration(
                f"model repository {repository} holds no model; it needs at least one folder with a config.pbtxt "
                "(`sketchbridge export` writes one from a checkpoint)"
            )
        for name in names:
            if name.startswith("."):
                raise InvalidConfiguration(
                    f"{repository / name} is a hidden folder, which Triton takes for a model; move it out of the "
                    "repository"
                )
            if name in owners:
                raise InvalidConfiguration(
                    f"model {name} is in {owners[name]} and in {repository}; Triton would serve neither. Remove one."
                )
            owners[name] = repository


def model_names(repository: Path) -> list[str]:
    """The folders of a repository that Triton takes for models, hidden ones included, sorted."""
    return sorted(entry.name for entry in repository.iterdir() if entry.is_dir())


def command_line(
    config: ServerConfig,
    endpoints: Endpoints,
    *,
    program: Path,
    backend_directory: Path,
    shared_memory_prefix: str,
    has_gpu_backends: bool,
    version_compatible_plans: bool = False,
) -> list[str]:
    """The command that starts Triton with these settings.

    shared_memory_prefix: how the names of this server's regions in /dev/shm start, so that what a killed stub leaves
        there can be told from other servers' and removed.
    has_gpu_backends: False where this Triton can use no GPU; pinned memory and GPU metrics would only log errors there.
    version_compatible_plans: True lets TensorRT run the host code that plans for later versions carry.
    """
    key = secrets.token_urlsafe(24)
    arguments = {
        "backend-directory": str(backend_directory),
        "model-control-mode": "none",
        # The server stays up when a model fails, so that its index can say which one and why.
        "exit-on-error": "false",
        "strict-readiness": "true",
        "exit-timeout-secs": str(config.grace_period_s),
        "http-address": endpoints.address,
        "http-port": str(endpoints.http_port),
        "grpc-address": endpoints.address,
        "grpc-port": str(endpoints.grpc_port),
        "metrics-address": endpoints.address,
        "metrics-port": str(endpoints.metrics_port),
        "http-restricted-api": f"{RESTRICTED_APIS}:sketchbridge-key={key}",
        "grpc-restricted-protocol": f"{RESTRICTED_APIS}:sketchbridge-key={key}",
    }
    if config.model_config_name is not None:
        arguments["model-config-name"] = config.model_config_name
    if not has_gpu_backends:
        arguments |= {"allow-gpu-metrics": "false", "pinned-memory-pool-byte-size": "0"}
    return [
        str(program),
        *(f"--model-repository={Path(repository).resolve()}" for repository in config.repositories),
        *(f"--{name}={value}" for name, value in arguments.items()),
        # Summaries keep a window of quantiles under a lock and cost a third of the throughput; counters are free.
        "--metrics-config=counter_latencies=true",
        "--metrics-config=summary_latencies=false",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix}",
        *(["--backend-config=tensorrt,version-compatible=true"] if version_compatible_plans else []),
    ]
