"""What an export costs, measured once for real on a small network; of the figures only the scale is asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sketchbridge_loadtest import export_cost
from sketchbridge_loadtest.export_cost import Cost, as_text, main, measure_export, random_checkpoint
from sketchbridge_loadtest.machine import describe_machine


def cost(kind: str, status: int, message: str = "") -> Cost:
    return Cost(kind, wall_s=1.0, peak_bytes=1024**3, size_bytes=2_500_000, status=status, message=message)


def test_an_export_is_timed_and_its_files_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random_checkpoint(2, tmp_path / "unet256.pt")
    words = ["--checkpoint", str(tmp_path / "unet256.pt"), "--artefacts", "onnx", "--min-ssim", "0.9", "--json"]
    assert main(words) == 0
    (found,) = json.loads(capsys.readouterr().out)
    weights_bytes = (tmp_path / "unet256.pt").stat().st_size
    assert (found["kind"], found["status"]) == ("onnx", 0)
    assert 0.8 * weights_bytes < found["size_bytes"] < 1.5 * weights_bytes
    assert 1 < found["wall_s"] < 120
    assert 200 * 1024**2 < found["peak_bytes"] < 8 * 1024**3  # torch alone takes as much


def test_an_export_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "none.pt").write_bytes(b"no checkpoint")
    found = measure_export(tmp_path / "none.pt", "onnx", tmp_path)
    assert (found.status, found.size_bytes) == (1, 0)
    assert found.message.startswith("error: ")
    assert f"| {found.message} |" in as_text([found], "nothing")


@pytest.mark.parametrize(("statuses", "expected"), [((0, 0), 0), ((0, 1), 1), ((0, -9), 1), ((2, 0), 1)])
def test_one_failure_is_a_failure_even_if_a_signal_ended_it(
    statuses: tuple[int, ...], expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = iter(statuses)
    monkeypatch.setattr(export_cost, "measure_export", lambda _, kind, *__: cost(kind, next(left)))
    assert main(["--checkpoint", str(tmp_path), "--artefacts", "onnx", "openvino"]) == expected


def test_options_of_int8_go_to_int8_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = {}

    def remember(_: Path, kind: str, __: Path, options: object) -> Cost:
        given[kind] = options
        return cost(kind, 0)

    monkeypatch.setattr(export_cost, "measure_export", remember)
    words = ["--checkpoint", str(tmp_path), "--artefacts", "openvino", "openvino-int8", "--min-ssim", "0.9"]
    assert main([*words, "--calibration", "photos"]) == 0
    assert given == {"openvino": (), "openvino-int8": ["--min-ssim", "0.9", "--calibration", "photos"]}


def test_the_table_names_the_machine_and_every_kind() -> None:
    text = as_text([cost("onnx", 0, "wrote"), cost("tensorrt", 1, "error: no GPU")], "U-Net-256 of ngf 2")
    assert f"{describe_machine()}; U-Net-256 of ngf 2" in text
    assert "| onnx | 1.0 | 1.00 | 2.5 |  |" in text
    assert "| tensorrt | 1.0 | 1.00 | 2.5 | error: no GPU |" in text
