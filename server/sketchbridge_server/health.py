"""What a running server says of its models, over HTTP and with the standard library only."""

from __future__ import annotations

import http.client
import json
import urllib.request
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sketchbridge_server.errors import StartFailed

REQUEST_TIMEOUT_S = 5.0
READY = "READY"

# Never through a proxy: the server is on this machine, whatever http_proxy says.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Role(Enum):
    """What a model is to a caller."""

    ENSEMBLE = "ensemble"
    GENERATOR = "generator"
    BUILDING_BLOCK = "building block"


@dataclass(frozen=True)
class IndexEntry:
    """One version of one model in Triton's index; `version` and `state` are empty where nothing was loaded."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready.

    versions: those that are served, lowest first; a call that names none gets the last.
    inputs: the names of its inputs, in the order of its configuration.
    """

    name: str
    versions: tuple[str, ...]
    role: Role
    inputs: tuple[str, ...]


def repository_index(url: str) -> list[IndexEntry] | None:
    """All models that Triton found in its repositories, loaded or not; None while nothing answers there."""
    answer = _ask(f"{url}/v2/repository/index", body=b"{}")
    if answer is None:
        return None
    return [
        IndexEntry(item["name"], item.get("version", ""), item.get("state", ""), item.get("reason", ""))
        for item in answer
    ]


def is_model_ready(url: str, name: str) -> bool:
    """Whether Triton takes requests for the model; true even if its Python process has died, which `stubs` sees."""
    try:
        with _opener.open(f"{url}/v2/models/{name}/ready", timeout=REQUEST_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def served_models(url: str, index: list[IndexEntry]) -> list[ServedModel]:
    """What is ready, with the role of each model from its configuration; sorted by name.

    Raises StartFailed if the server does not tell a configuration.
    """
    versions: dict[str, list[str]] = {}
    for entry in index:
        if entry.state == READY:
            versions.setdefault(entry.name, []).append(entry.version)
    models = []
    for name in sorted(versions):
        config = _ask(f"{url}/v2/models/{name}/config")
        if config is None:
            raise StartFailed(f"model {name} is ready, but {url} does not say how it is configured; start it again")
        models.append(
            ServedModel(
                name=name,
                versions=tuple(sorted(versions[name], key=int)),
                role=role_of(config),
                inputs=tuple(item["name"] for item in config.get("input", ())),
            )
        )
    return models


def role_of(config: dict[str, Any]) -> Role:
    """An ensemble is one by its platform; a generator runs in any backend but Python; the rest are building blocks."""
    if config.get("platform") == "ensemble":
        return Role.ENSEMBLE
    return Role.BUILDING_BLOCK if config.get("backend") == "python" else Role.GENERATOR


def _ask(url: str, *, body: bytes | None = None) -> Any:
    """GET, or POST a body; the parsed JSON answer, or None if none came."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - http
    try:
        with _opener.open(request, timeout=REQUEST_TIMEOUT_S) as response:
            return json.load(response)
    except (OSError, http.client.HTTPException, ValueError):  # ValueError: what answers there speaks no JSON
        return None
