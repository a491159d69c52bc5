"""Run NVIDIA Triton Inference Server: find it, start it, wait until every model is ready, stop it gracefully.

    with TritonServer(ServerConfig(repositories=(Path("model_repository"),), http_port=0)) as server:
        ...  # server.endpoints.grpc_url

`serve` is that for a terminal, and `command` its flags. `backends/` holds backends that stand in where Triton's
own are missing. Everything that goes wrong is a `ServeError`; `errors` draws the tree.
"""

from __future__ import annotations

from sketchbridge_server.config import Endpoints, ServerConfig
from sketchbridge_server.errors import (
    InvalidConfiguration,
    ModelLoadFailed,
    PortUnavailable,
    ServeError,
    ServerDied,
    StartCancelled,
    StartFailed,
    TritonNotFound,
)
from sketchbridge_server.health import Role, ServedModel
from sketchbridge_server.installation import Installation, find_installation
from sketchbridge_server.serving import serve
from sketchbridge_server.triton import TritonServer

__all__ = [
    "Endpoints",
    "Installation",
    "InvalidConfiguration",
    "ModelLoadFailed",
    "PortUnavailable",
    "Role",
    "ServeError",
    "ServedModel",
    "ServerConfig",
    "ServerDied",
    "StartCancelled",
    "StartFailed",
    "TritonNotFound",
    "TritonServer",
    "find_installation",
    "serve",
]
