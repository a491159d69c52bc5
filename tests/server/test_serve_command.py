"""`sketchbridge serve` as a shell sees it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from sketchbridge_server import Endpoints, Role, ServedModel
from sketchbridge_server.serving import announcement, how_to_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from sketchbridge_server import TritonServer

SKETCHBRIDGE = str(Path(sys.executable).with_name("sketchbridge"))
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed on this machine")
HEAVY = {"numpy", "cv2", "onnxruntime", "tritonclient", "grpc"}
ENDPOINTS = Endpoints("127.0.0.1", http_port=8000, grpc_port=8001, metrics_port=8002)


def serve(*arguments: str | Path, ports: tuple[int, int, int] = (0, 0, 0)) -> subprocess.Popen[str]:
    flags = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    return subprocess.Popen(
        [SKETCHBRIDGE, "serve", *map(str, arguments), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_until(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if word in line:
            return seen
    raise AssertionError(f"{word!r} never came; it wrote {seen!r} and {process.communicate()}")


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_when_it_is_ready_and_stops_cleanly(repository: Any, number: signal.Signals) -> None:
    with serve("--repository", repository.python("echo").folder) as process:
        assert "Ready after" in output_until(process, "echo (v1)")
        process.send_signal(number)
        output, errors = process.communicate()
    assert output.endswith("Stopped.\n")
    assert (process.returncode, errors) == (0, "")


@pytest.mark.server
def test_a_second_signal_kills_a_request_in_flight_and_says_so(
    repository: Any, tmp_path: Path, request_input: Callable[..., Any]
) -> None:
    begun = tmp_path / "begun"
    with serve("--repository", repository.python("echo").folder) as process, ThreadPoolExecutor(1) as pool:
        url = output_until(process, "Ready after").partition("gRPC ")[2].partition(",")[0]
        with triton_grpc.InferenceServerClient(url) as client:
            text = np.array([[f"hang {begun}"]], dtype=object)
            answer = pool.submit(client.infer, "echo", [request_input("text", text)])
            while not begun.exists():
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            output_until(process, "Stopping")
            process.send_signal(signal.SIGINT)
            output, _ = process.communicate()
            assert isinstance(answer.exception(), InferenceServerException)
    assert output == "Stopped before all requests had finished.\n"
    assert process.returncode == 1


@pytest.mark.server
def test_a_stop_finishes_its_requests_even_when_nobody_reads_what_it_says(
    repository: Any, tmp_path: Path, request_input: Callable[..., Any]
) -> None:
    begun = tmp_path / "begun"
    with serve("--repository", repository.python("echo").folder) as process, ThreadPoolExecutor(1) as pool:
        url = output_until(process, "echo (v1)").partition("gRPC ")[2].partition(",")[0]
        with triton_grpc.InferenceServerClient(url) as client:
            text = np.array([[f"sleep {begun}"]], dtype=object)
            answer = pool.submit(client.infer, "echo", [request_input("text", text)])
            while not begun.exists():
                time.sleep(0.05)
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()  # as Ctrl-C ends `| tee` together with the server
            process.send_signal(signal.SIGINT)
            assert answer.result().as_numpy("seen").shape == (1, 1)
        assert (process.wait(), process.stderr.read()) == (0, "")


@pytest.mark.server
def test_a_server_that_dies_ends_the_command_with_a_message(repository: Any) -> None:
    with serve("--repository", repository.python("echo").folder) as process:
        output_until(process, "echo (v1)")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        os.kill(int(children.split()[0]), signal.SIGKILL)  # the first child is Triton, the second its guardian
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "error: Triton ended by itself with exit code -9." in errors


def test_wrong_calls_exit_with_two_and_a_busy_port_with_one(tmp_path: Path, repository: Any) -> None:
    with serve("--repository", tmp_path / "nowhere") as process:
        _, errors = process.communicate()
    assert (process.returncode, errors.count("\n")) == (2, 1)
    assert "nowhere does not exist; give its path with --repository" in errors
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with serve("--repository", repository.python("echo").folder, ports=(0, 0, port)) as process:
            _, errors = process.communicate()
    assert process.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use" in errors
    assert "--metrics-port" in errors


def test_help_has_examples_and_loads_nothing_heavy() -> None:
    code = (
        "import json, sys\nfrom sketchbridge_cli import main\n"
        "status = main(['serve', '--help'])\nprint()\nprint(json.dumps([status, sorted(sys.modules)]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shown, _, last = ran.stdout.rstrip("\n").rpartition("\n")
    status, modules = json.loads(last)
    assert status == 0
    assert "\n  sketchbridge serve --repository ./model_repository" in shown
    assert "\nexit status: 0" in shown
    assert not HEAVY.intersection(modules)


def test_the_announcement_groups_models_and_shows_how_to_call_the_first_painter() -> None:
    models = [
        ServedModel("decode", ("1",), Role.BUILDING_BLOCK, ("image_bytes",)),
        ServedModel("faces_roundtrip", ("1",), Role.ENSEMBLE, ("photo",)),
        ServedModel("shoes", ("1", "2"), Role.ENSEMBLE, ("sketch",)),
        ServedModel("shoes_generator", ("3",), Role.GENERATOR, ("sketch",)),
    ]
    text = announcement(models, ENDPOINTS, seconds=3.14, no_gpu=True)
    assert text.splitlines()[:5] == [
        "No GPU: serving on the CPU.",
        "Ready after 3.1 s. HTTP http://127.0.0.1:8000, gRPC 127.0.0.1:8001, metrics http://127.0.0.1:8002/metrics",
        "  Pipelines        faces_roundtrip (v1), shoes (v1, v2)",
        "  Generators       shoes_generator (v3)",
        "  Building blocks  decode (v1)",
    ]
    assert len(how_to_call("shoes", ENDPOINTS)) == 3
    assert all("shoes" in line and "faces" not in line for line in how_to_call("shoes", ENDPOINTS))


def test_a_server_without_a_painter_is_announced_without_examples() -> None:
    text = announcement([ServedModel("echo", ("1",), Role.BUILDING_BLOCK, ())], ENDPOINTS, seconds=1.0, no_gpu=False)
    assert "Call it" not in text
    assert "No GPU" not in text


@pytest.mark.server
@needs_curl
def test_the_http_line_for_a_shell_writes_the_bytes_of_the_photo(served: TritonServer, tmp_path: Path) -> None:
    (tmp_path / "sketch.png").write_bytes(b"any text")
    subprocess.run(["/bin/sh", "-c", how_to_call("shoes", served.endpoints)[1]], cwd=tmp_path, check=True)
    assert (tmp_path / "photo.png").read_bytes().startswith(b'{"parameters"')


@pytest.mark.server
@needs_curl
def test_a_refusal_fails_the_http_line_and_makes_no_photo(served: TritonServer, tmp_path: Path) -> None:
    (tmp_path / "sketch.png").write_bytes(b"refuse")
    line = how_to_call("shoes", served.endpoints)[1]
    ran = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "400" in ran.stderr
    assert not (tmp_path / "photo.png").exists()
    assert "no thanks" in (tmp_path / "answer").read_text()


def test_the_python_line_is_one_for_a_shell() -> None:
    python, flag, code = shlex.split(how_to_call("shoes", ENDPOINTS)[2])
    assert (python, flag) == ("python", "-c")
    compile(code, "the line", "exec")
