from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sketchbridge_server import TritonNotFound, find_installation
from sketchbridge_server.backend_directory import assemble
from sketchbridge_server.installation import STUB, check_stub, library_path, native_installation
from sketchbridge_server.triton import server_environment


def native_triton(root: Path, *backends: str) -> Path:
    """A folder laid out as in NVIDIA's image."""
    program = root / "bin" / "tritonserver"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    for backend in backends:
        (root / "backends" / backend).mkdir(parents=True)
        (root / "backends" / backend / f"libtriton_{backend}.so").touch()
    return program


def test_the_wheels_triton_is_found_without_importing_it() -> None:
    installation = find_installation()
    assert os.access(installation.program, os.X_OK)
    assert installation.stub is not None
    assert installation.stub.parent.name == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert not installation.has_gpu_backends
    assert "pytriton" not in sys.modules


def test_a_triton_on_the_path_comes_first_and_keeps_its_own_backends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = native_triton(tmp_path, "python", "onnxruntime", "openvino")
    monkeypatch.setenv("PATH", str(program.parent))
    installation = find_installation()
    assert installation.program == program
    (tmp_path / "folder").mkdir()
    assert assemble(installation, tmp_path / "folder") == tmp_path / "backends"


def test_a_triton_without_onnx_runtime_gets_ours_beside_its_own_backends(tmp_path: Path) -> None:
    installation = native_installation(native_triton(tmp_path, "python", "tensorrt"))
    folder = tmp_path / "folder"
    folder.mkdir()
    assert assemble(installation, folder) == folder
    assert {entry.name for entry in folder.iterdir()} >= {"python", "tensorrt", "onnxruntime"}
    assert (folder / "onnxruntime" / "model.py").is_file()


def test_only_the_backends_that_a_triton_lacks_are_ours(tmp_path: Path) -> None:
    installation = native_installation(native_triton(tmp_path, "python", "onnxruntime"))
    folder = tmp_path / "folder"
    folder.mkdir()
    assert assemble(installation, folder) == folder
    assert (folder / "onnxruntime").resolve() == tmp_path / "backends" / "onnxruntime"
    assert (folder / "openvino" / "model.py").is_file()


def test_a_triton_without_the_python_backend_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TritonNotFound, match="has no Python backend"):
        native_installation(native_triton(tmp_path, "tensorrt"))


def test_a_stub_whose_libraries_are_missing_names_the_package(tmp_path: Path) -> None:
    stub = tmp_path / STUB
    message = f"{stub}: error while loading shared libraries: libpython3.so.1.0: cannot open shared object file"
    stub.write_text(f"#!/bin/sh\necho '{message}' >&2\nexit 127\n")
    stub.chmod(0o755)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(TritonNotFound, match=rf"cannot open shared.*apt-get install libpython{version}"):
        check_stub(stub, ())


def test_a_stub_that_is_no_program_is_an_error_of_ours(tmp_path: Path) -> None:
    stub = tmp_path / STUB
    stub.write_bytes(b"built for another machine")
    stub.chmod(0o755)
    with pytest.raises(TritonNotFound, match=r"cannot start here: .*Exec format error"):
        check_stub(stub, ())


def test_the_running_interpreter_comes_first_and_a_foreign_home_is_dropped() -> None:
    environment = server_environment(
        find_installation(), {"PATH": "/usr/bin", "PYTHONHOME": "/opt/other", "LD_LIBRARY_PATH": "/opt/lib", "A": "1"}
    )
    assert environment["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin"]
    assert "PYTHONHOME" not in environment
    assert environment["LD_LIBRARY_PATH"].endswith(":/opt/lib")
    assert environment["A"] == "1"


def test_an_empty_library_path_stays_out() -> None:
    assert library_path((Path("/a"), Path("/b")), inherited="") == "/a:/b"
