from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sketchbridge_server import Endpoints, InvalidConfiguration, ServerConfig
from sketchbridge_server.config import check_repositories, command_line

REPOSITORIES = (Path("model_repository"),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repositories": ()}, "no model repository"),
        ({"http_port": 65536}, "http_port is 65536; a port is 1 to 65535"),
        ({"metrics_port": -1}, "metrics_port is -1"),
        ({"http_port": 9000, "grpc_port": 9000}, "need ports of their own"),
        ({"ready_timeout_s": 0.0}, "ready_timeout_s is 0"),
        ({"ready_timeout_s": float("nan")}, "ready_timeout_s is nan"),
        ({"grace_period_s": -1}, "grace_period_s is -1"),
        ({"model_config_name": "two words"}, "without spaces"),
        ({"model_config_name": ""}, "without spaces"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        ServerConfig(**{"repositories": REPOSITORIES, **settings})


def test_several_ports_may_be_left_to_chance() -> None:
    ServerConfig(REPOSITORIES, http_port=0, grpc_port=0, metrics_port=0)


def test_a_missing_a_wrong_and_an_empty_repository_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="does not exist; give its path with --repository"):
        check_repositories([tmp_path / "nowhere"])
    (tmp_path / "file").touch()
    with pytest.raises(InvalidConfiguration, match="is not a folder"):
        check_repositories([tmp_path / "file"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").touch()
    with pytest.raises(InvalidConfiguration, match="holds no model"):
        check_repositories([tmp_path / "empty"])


def test_a_hidden_folder_is_refused_at_the_root_and_no_matter_inside_a_model(tmp_path: Path) -> None:
    (tmp_path / "shoes" / ".models-staging-1").mkdir(parents=True)
    check_repositories([tmp_path])
    (tmp_path / ".git").mkdir()
    with pytest.raises(InvalidConfiguration, match=r"\.git is a hidden folder.* move it out of the repository"):
        check_repositories([tmp_path])


def test_a_model_in_two_repositories_is_named(tmp_path: Path) -> None:
    for repository in ("one", "two"):
        (tmp_path / repository / "shoes").mkdir(parents=True)
    with pytest.raises(InvalidConfiguration, match=r"model shoes is in .*one and in .*two"):
        check_repositories([tmp_path / "one", tmp_path / "two"])


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),  # noqa: S104 - what is under test
        ("10.1.2.3", "http://10.1.2.3:8000"),
    ],
)
def test_urls_can_be_connected_to(address: str, url: str) -> None:
    assert Endpoints(address, http_port=8000, grpc_port=8001, metrics_port=8002).http_url == url


@pytest.mark.parametrize(("has_gpu_backends", "is_told"), [(False, True), (True, False)])
def test_gpu_metrics_are_switched_off_only_where_there_is_no_gpu_backend(
    *, has_gpu_backends: bool, is_told: bool
) -> None:
    command = command_line(
        ServerConfig(REPOSITORIES, address="localhost", model_config_name="gpu"),
        Endpoints("127.0.0.1", http_port=1, grpc_port=2, metrics_port=3),
        program=Path("tritonserver"),
        backend_directory=Path("backends"),
        shared_memory_prefix="ours_",
        has_gpu_backends=has_gpu_backends,
    )
    assert ("--allow-gpu-metrics=false" in command) is is_told
    assert "--model-config-name=gpu" in command
    assert "--http-address=127.0.0.1" in command
    assert f"--model-repository={REPOSITORIES[0].resolve()}" in command
