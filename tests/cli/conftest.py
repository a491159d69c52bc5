from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sketchbridge_server.config import Endpoints
from tests.client.stand_in import stand_in_server


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gRPC address of a real Triton that serves models which send the picture back."""
    names = ("shoes", "birds", "sketch", "shoes_roundtrip")
    with stand_in_server(tmp_path_factory.mktemp("repository"), names) as endpoints:
        yield endpoints.grpc_url


@pytest.fixture
def mortal_server(tmp_path_factory: pytest.TempPathFactory) -> AbstractContextManager[Endpoints]:
    """A server of sketches for one test alone, to be started and stopped by it."""
    return stand_in_server(tmp_path_factory.mktemp("repository"), ("sketch",))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKETCHBRIDGE_URL", raising=False)
    return tmp_path


@pytest.fixture
def png() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(7).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="png")
    return buffer.getvalue()


@pytest.fixture
def environment() -> dict[str, str]:
    """For a `sketchbridge` in a process of its own: ours, without a server named in it."""
    return {key: value for key, value in os.environ.items() if key != "SKETCHBRIDGE_URL"}
