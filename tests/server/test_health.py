"""What is made of a server that is no Triton, or one that stops answering."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from sketchbridge_server import StartFailed
from sketchbridge_server.health import READY, IndexEntry, repository_index, served_models

if TYPE_CHECKING:
    from collections.abc import Iterator


class Greeting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    do_POST = do_GET  # noqa: N815  the name the handler looks for

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of an HTTP server that answers everything with a text."""
    with HTTPServer(("127.0.0.1", 0), Greeting) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_answer_that_is_no_json_is_no_index(stranger: str) -> None:
    assert repository_index(stranger) is None


def test_a_ready_model_without_a_configuration_is_not_guessed_at(stranger: str) -> None:
    with pytest.raises(StartFailed, match=r"model shoes is ready, but .* does not say how it is configured"):
        served_models(stranger, [IndexEntry("shoes", "1", READY, "")])
