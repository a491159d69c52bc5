"""Lines as Triton 2.51 printed them."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from sketchbridge_server import InvalidConfiguration
from sketchbridge_server.log import NO_GPU, LogReader, load_failure, open_log, parse_line

CPU_ONLY = [
    'W1121 15:55:24.102373 3909 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned memory '
    'pool will not be available: CUDA driver version is insufficient for CUDA runtime version"',
    'I1121 15:55:24.102448 3909 cuda_memory_manager.cc:117] "CUDA memory pool disabled"',
    'E1121 15:55:24.102499 3909 server.cc:241] "CudaDriverHelper has not been initialized."',
    'E1121 15:55:47.993879 4059 ensemble_scheduler.cc:1468] "unable to create stream for ens: CUDA driver version is '
    'insufficient for CUDA runtime version"',
    "Error: Failed to initialize NVML",
    'W1121 15:55:25.515055 3909 metrics.cc:798] "DCGM unable to start: DCGM initialization error"',
    'W1121 15:56:31.862412 4311 pinned_memory_manager.cc:170] "failed to allocate pinned system memory: no pinned '
    'memory pool, falling back to non-pinned system memory"',
]
TABLE = [
    "I1121 15:55:25.514128 3909 server.cc:604] ",
    "",
    "+------+---------+",
    "| gen  | 1       |",
    "+------+---------+",
]
WARNING = "W1121 15:55:25.515055 3909 model_lifecycle.cc:108] \"ignore version directory 'tmp'\""
FROM_A_STUB = "I1121 15:55:46.480756 4075 model.py:7]  loaded in 0.2 s"


@pytest.mark.parametrize("line", CPU_ONLY)
def test_messages_of_a_machine_without_a_gpu_are_known(line: str) -> None:
    assert parse_line(line).is_no_gpu


def test_they_become_one_sentence_and_the_rest_passes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    reader = LogReader(io.StringIO("\n".join([*CPU_ONLY, *TABLE, WARNING, FROM_A_STUB, "printed by a model", ""])))
    reader.join(timeout_s=10)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", NO_GPU),
        ("WARNING", "triton: ignore version directory 'tmp'"),
        ("INFO", "triton: loaded in 0.2 s"),
        ("INFO", "triton: printed by a model"),
    ]
    assert reader.has_no_gpu
    assert reader.last_lines(2) == ["loaded in 0.2 s", "printed by a model"]


@pytest.mark.parametrize(
    ("line", "model", "reason"),
    [
        (
            "E1121 16:00:09.203316 5628 model_lifecycle.cc:642] \"failed to load 'nobackend' version 1: Invalid "
            "argument: unable to find backend library for backend 'tensorrt'\"",
            "nobackend",
            "Invalid argument: unable to find backend library for backend 'tensorrt'",
        ),
        (
            "E1121 16:00:09.202550 5628 model_repository_manager.cc:1460] \"Poll failed for model directory 'nocfg': "
            'Invalid model name"',
            "nocfg",
            "Invalid model name",
        ),
        (
            "E1121 16:00:09.202679 5628 model_repository_manager.cc:724] \"failed to load model 'noversion': at least "
            'one version must be available"',
            "noversion",
            "at least one version must be available",
        ),
        (
            "E1121 16:00:10.597652 5628 model_repository_manager.cc:703] \"Invalid argument: ensemble 'ens' depends on "
            "'imp' which has no loaded version.\\n\"",
            "ens",
            "ensemble 'ens' depends on 'imp' which has no loaded version.",
        ),
        (
            'E1121 20:32:00.000000 1 model_repository_manager.cc:703] "Invalid argument: ensemble ens contains models '
            'that are not available or ambiguous: imp"',
            "ens",
            "ensemble ens contains models that are not available or ambiguous: imp",
        ),
    ],
)
def test_the_model_and_the_reason_of_a_failure_are_read(line: str, model: str, reason: str) -> None:
    assert load_failure(parse_line(line)) == (model, reason)


def test_what_is_told_again_with_the_models_name_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    lines = [
        'E1121 20:32:00.0 1 pb_stub.cc:426] "ERROR: Failed to create instance: ConfigurationError: x"',
        'E1121 20:32:00.0 1 model_repository_manager.cc:703] "Internal: failed to load all models"',
    ]
    reader = LogReader(io.StringIO("\n".join([*lines, ""])))
    reader.join(timeout_s=10)
    assert caplog.records == []
    assert len(reader.last_lines(5)) == 2


def test_a_loaded_model_is_no_failure() -> None:
    assert load_failure(parse_line("I1121 15:55:25.4 1 model_lifecycle.cc:839] \"successfully loaded 'pre'\"")) is None


def test_a_line_with_a_stray_backslash_keeps_its_text() -> None:
    assert parse_line('E1121 10:00:00.000000 1 x.cc:1] "C:\\weights"').message == '"C:\\weights"'


def test_the_log_file_gets_every_line_and_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "triton.log"
    path.write_text("before\n")
    lines = "\n".join([*CPU_ONLY, *TABLE, ""])
    LogReader(io.StringIO(lines), log_file=open_log(path)).join(timeout_s=10)
    assert path.read_text() == f"before\n{lines}"


def test_a_disk_that_fills_up_ends_the_log_file_with_one_warning_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader = LogReader(io.StringIO("one\ntwo\nthree\n"), log_file=open_log(Path("/dev/full")))
    reader.join(timeout_s=10)
    assert reader.last_lines(3) == ["one", "two", "three"]
    assert [record.getMessage() for record in caplog.records] == [
        "the log file /dev/full ends here: No space left on device"
    ]


def test_a_log_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="cannot be written: No such file"):
        open_log(tmp_path / "nowhere" / "triton.log")
