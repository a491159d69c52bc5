"""Starting, failing to start, and stopping a real Triton."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc

from sketchbridge_server import (
    ModelLoadFailed,
    PortUnavailable,
    Role,
    ServeError,
    ServerDied,
    StartCancelled,
    StartFailed,
    TritonServer,
    find_installation,
)
from sketchbridge_server.guardian import SHARED_MEMORY
from sketchbridge_server.stubs import find_stubs

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.server


def group_members(group: int) -> list[int]:
    """The processes of a process group, zombies aside."""
    members = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and fields[0] != "Z":
                members.append(int(folder.name))
    return members


def wait_until(condition: Callable[[], bool]) -> None:
    """The test's own time limit ends a wait that is in vain."""
    while not condition():
        time.sleep(0.05)


def test_every_model_is_listed_with_its_role(served: TritonServer) -> None:
    roles = {model.name: model.role for model in served.wait_until_ready()}
    assert roles == {
        "add": Role.GENERATOR,
        "completed": Role.GENERATOR,
        "copy": Role.GENERATOR,
        "echo": Role.BUILDING_BLOCK,
        "invert": Role.GENERATOR,
        "invert_seven": Role.GENERATOR,
        "fold": Role.GENERATOR,
        "lookup": Role.GENERATOR,
        "openvino_invert": Role.GENERATOR,
        "openvino_invert_seven": Role.GENERATOR,
        "shoes": Role.ENSEMBLE,
    }


def test_a_stop_answers_the_request_in_flight_and_leaves_nothing_behind(
    repository: Any, make_config: Callable[..., Any], request_input: Callable[..., Any], tmp_path: Path
) -> None:
    server = TritonServer(make_config(repository.python("echo").folder))
    server.start()
    server.wait_until_ready()
    group, running = server.process_id, server._require_running()
    assert list(SHARED_MEMORY.glob(f"{running.shared_memory_prefix}*"))
    stubs = find_stubs(group)
    assert list(stubs.values()) == ["echo_0"]
    assert set(stubs) < set(group_members(group))
    with (
        triton_grpc.InferenceServerClient(server.endpoints.grpc_url) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        begun = tmp_path / "begun"
        text = np.array([[f"sleep {begun}"]], dtype=object)
        answer = pool.submit(client.infer, "echo", [request_input("text", text)])
        wait_until(begun.exists)
        assert server.stop()
        assert answer.result().as_numpy("seen").shape == (1, 1)
    assert group_members(group) == []
    assert not running.folder.exists()
    assert list(SHARED_MEMORY.glob(f"{running.shared_memory_prefix}*")) == []
    assert server.stop()
    with pytest.raises(ServeError, match=r"call start\(\) first"):
        _ = server.endpoints


def test_broken_models_are_named_with_the_reason_and_what_to_do(
    repository: Any, make_config: Callable[..., Any]
) -> None:
    repository.python("missing_package", "import nothing_like_this\n").python("echo")
    repository.python("raises", RAISING_MODEL)
    repository.python("typo", config='bakcend: "python"')
    repository.python("engine", config='backend: "tensorrt" max_batch_size: 8')
    repository.ensemble("shoes", ENSEMBLE_OF_MISSING)
    (repository.folder / "notes").mkdir()
    with pytest.raises(ModelLoadFailed) as caught:
        TritonServer(make_config(repository.folder)).__enter__()
    message = str(caught.value)
    assert set(caught.value.reasons) == {"missing_package", "raises", "typo", "engine", "shoes", "notes"}
    assert (
        "missing_package: ModuleNotFoundError: No module named 'nothing_like_this'. Install nothing_like_this"
        in message
    )
    assert "raises: ValueError: bad weights" in message
    assert "typo: failed to read text proto" in message
    assert 'has no field named "bakcend"' in message
    assert "engine: unable to find backend library for backend 'tensorrt'" in message
    assert "shoes: depends on 'missing_package'" in message
    assert "notes:" in message
    assert "_call_with_frames_removed" not in message


RAISING_MODEL = """
class TritonPythonModel:
    def initialize(self, args):
        raise ValueError("bad weights")
"""

ENSEMBLE_OF_MISSING = """
platform: "ensemble"
max_batch_size: 8
input { name: "sketch" data_type: TYPE_STRING dims: [1] }
output { name: "photo" data_type: TYPE_STRING dims: [1] }
ensemble_scheduling {
  step {
    model_name: "missing_package" model_version: -1
    input_map { key: "text" value: "sketch" } output_map { key: "seen" value: "photo" }
  }
}
"""


def test_a_process_that_ends_during_the_start_shows_its_last_messages(
    repository: Any, make_config: Callable[..., Any], tmp_path: Path
) -> None:
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\necho 'E0101 10:00:00.000000 1 main.cc:1] \"the roof is on fire\"'\nexit 3\n")
    program.chmod(0o755)
    installation = replace(find_installation(), program=program)
    with pytest.raises(StartFailed, match=r"exit code 3[^$]*the roof is on fire"):
        TritonServer(make_config(repository.python("echo").folder), installation=installation).__enter__()


def test_a_start_can_be_cancelled_and_can_run_out_of_time(repository: Any, make_config: Callable[..., Any]) -> None:
    repository.python("echo", "import time\ntime.sleep(60)\n")
    server = TritonServer(make_config(repository.folder))
    server.start()
    group = server.process_id
    with pytest.raises(StartCancelled):
        server.wait_until_ready(cancelled=lambda: True)
    assert group_members(group) == []
    with pytest.raises(StartFailed, match=r"not ready after 0\.5 s; raise --ready-timeout"):
        TritonServer(make_config(repository.folder, ready_timeout_s=0.5)).__enter__()


def test_a_dead_model_process_is_noticed(
    repository: Any, make_config: Callable[..., Any], request_input: Callable[..., Any]
) -> None:
    server = TritonServer(make_config(repository.python("echo").folder))
    server.start()
    try:
        server.wait_until_ready()
        server.check_alive()
        with (
            triton_grpc.InferenceServerClient(server.endpoints.grpc_url) as client,
            pytest.raises(triton_grpc.InferenceServerException),
        ):
            client.infer("echo", [request_input("text", np.array([["die"]], dtype=object))])
        with pytest.raises(ServerDied, match="Python process of echo_0 died"):
            server.check_alive()
    finally:
        server.stop(grace_period_s=0)


def test_a_port_in_use_is_named_with_its_flag(repository: Any, make_config: Callable[..., Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = TritonServer(make_config(repository.python("echo").folder, grpc_port=port))
        with pytest.raises(PortUnavailable, match=rf"port {port} .* --grpc-port") as caught:
            server.start()
    assert caught.value.port == port


ABANDONED = """
import os, sys
from pathlib import Path
from sketchbridge_server import ServerConfig, TritonServer
server = TritonServer(ServerConfig((Path(sys.argv[1]),), http_port=0, grpc_port=0, metrics_port=0, grace_period_s=1))
server.start()
server.wait_until_ready()
running = server._running
print(server.process_id, running.guardian.pid, running.folder, running.shared_memory_prefix, flush=True)
sys.stdin.read()
"""


def test_the_server_and_its_stubs_end_when_their_parent_is_killed_whatever_hits_the_guardian(repository: Any) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ABANDONED, str(repository.python("echo").folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        group, guardian, folder, prefix = parent.stdout.readline().split()
        assert group_members(int(group))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # as whoever ends a whole session sends them
            os.kill(int(guardian), number)
        parent.kill()
    wait_until(lambda: not group_members(int(group)))
    wait_until(lambda: not Path(folder).exists())
    wait_until(lambda: not list(SHARED_MEMORY.glob(f"{prefix}*")))
