"""What the whole suite shares: the real server over the repository as it ships, and real pictures."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from sketchbridge_client import Client
from sketchbridge_server import ServerConfig, TritonServer

# A shell that starts the suite in the background has it ignore SIGINT, and the tests of Ctrl-C would wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
SKETCHES = sorted((ROOT / "examples" / "sketches" / "shoes").glob("*.png"))
PHOTOS = [Path(str(files("skimage.data") / name)) for name in ("chelsea.png", "coffee.png", "rocket.jpg")]


@pytest.fixture(scope="session")
def server() -> Iterator[TritonServer]:
    """The real tritonserver, once a session, on free ports of this machine."""
    config = ServerConfig(repositories=(ROOT / "model_repository",), http_port=0, grpc_port=0, metrics_port=0)
    with TritonServer(config) as running:
        yield running


@pytest.fixture
def client(server: TritonServer) -> Iterator[Client]:
    with Client(server.endpoints.grpc_url) as connected:
        yield connected


@pytest.fixture(params=SKETCHES, ids=lambda path: path.stem)
def drawing(request: pytest.FixtureRequest) -> Path:
    """Each hand-drawn sketch in turn."""
    path: Path = request.param
    return path


@pytest.fixture(params=PHOTOS, ids=lambda path: path.stem)
def photo(request: pytest.FixtureRequest) -> Path:
    """Each photograph in turn."""
    path: Path = request.param
    return path
