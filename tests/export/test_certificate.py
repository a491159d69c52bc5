from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sketchbridge_export.certificate import Certificate, certify, read_certificate
from sketchbridge_export.errors import ParityFailed
from sketchbridge_export.parity import TOLERANCES, Paint, Pictures, Precision
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_preprocess import decode

PICTURES = shipped_pictures()


def certified(paint: Paint, precision: Precision, evidence: Path, *, min_ssim: float | None = None) -> Certificate:
    return certify(
        "openvino",
        expected=PICTURES,
        paint=paint,
        pictures=PICTURES,
        precision=precision,
        min_ssim=min_ssim,
        measured_on="here",
        evidence=evidence,
    )


def noisy(levels: int) -> Paint:
    """Adds noise; `levels` is its deviation."""

    def paint(batch: Pictures) -> Pictures:
        noise = np.random.default_rng(0).normal(0, levels, batch.shape)
        return np.clip(batch + noise, 0, 255).astype(np.uint8)

    return paint


def test_a_certificate_survives_the_manifest(tmp_path: Path) -> None:
    certificate = certified(lambda batch: batch, "int8", tmp_path / "worst.png", min_ssim=0.9)
    read = read_certificate(certificate.as_json())
    assert (read.precision, read.tolerance.min_ssim, read.measured_on) == ("int8", 0.9, "here")
    assert [batch.batch_size for batch in read.batches] == [1, 2, 5]
    assert read.batches[0].ssim == pytest.approx(1.0)
    assert not (tmp_path / "worst.png").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16-weights", "fp16", "bf16", "int8"])
def test_every_precision_refuses_noise_and_shows_the_worst_picture(precision: Precision, tmp_path: Path) -> None:
    evidence = tmp_path / "shoes_openvino_worst.png"
    with pytest.raises(ParityFailed, match="openvino does not paint what the checkpoint paints: batch 1") as caught:
        certified(noisy(20), precision, evidence)
    assert str(TOLERANCES[precision]) in str(caught.value)
    assert str(evidence) in str(caught.value)
    sheet = decode(evidence.read_bytes())
    assert sheet.shape == (284, 4 * 256 + 3 * 8, 3)
    tiles = [sheet[28:, 264 * column : 264 * column + 256] for column in range(4)]
    assert any(np.array_equal(tiles[0], picture) for picture in PICTURES)
    assert np.array_equal(tiles[0], tiles[1])  # here the drawing itself is what was expected
    assert not np.array_equal(tiles[1], tiles[2])
    assert tiles[3].max() == 255
    assert [path.name for path in tmp_path.iterdir()] == [evidence.name]


def test_only_int8_can_be_asked_for_less_or_more(tmp_path: Path) -> None:
    with pytest.raises(ParityFailed, match=r"SSIM of 0\.995 or more"):
        certified(noisy(20), "fp16", tmp_path / "worst.png", min_ssim=0.01)
    assert certified(noisy(20), "int8", tmp_path / "worst.png", min_ssim=0.01).tolerance.min_ssim == 0.01
    with pytest.raises(ParityFailed, match=r"SSIM of 0\.9999 or more"):
        certified(noisy(1), "int8", tmp_path / "worst.png", min_ssim=0.9999)


def test_evidence_that_can_not_be_written_does_not_hide_the_figures(tmp_path: Path) -> None:
    with pytest.raises(ParityFailed, match=r"batch 1: SSIM 0\.\d+.*could not be written to .*No such file"):
        certified(noisy(40), "int8", tmp_path / "nowhere" / "worst.png")
