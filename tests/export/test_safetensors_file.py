from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources import Checkpoint, open_source
from tests.export.conftest import Pix2PixUNet, randomise

UNET = {key: value.contiguous() for key, value in randomise(Pix2PixUNet(downs=5, ngf=2)).state_dict().items()}


def written(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_a_state_dict_is_read_with_its_metadata_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "generator.bin"  # the name says nothing
    save_file(UNET, path, metadata={"format": "pt", "sketchbridge": '{"norm": "running"}'})
    checkpoint = open_source(path)
    assert isinstance(checkpoint, Checkpoint)
    torch.testing.assert_close(dict(checkpoint.weights.tensors), UNET)
    assert checkpoint.metadata == {"norm": "running"}
    assert checkpoint.format == "safetensors"
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_prefixes_and_parts_are_taken_off_as_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    save_file({f"generator.module.{key}": value for key, value in UNET.items()} | {"netD.a": torch.ones(2)}, path)
    checkpoint = open_source(path)
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.weights.tensors.keys() == UNET.keys()


def test_half_precision_becomes_float32_and_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({"a": torch.tensor([1.5], dtype=torch.bfloat16)}, path)
    checkpoint = open_source(path)
    assert isinstance(checkpoint, Checkpoint)
    assert checkpoint.weights.tensors["a"].dtype == torch.float32
    save_file({"a": torch.tensor([float("nan")])}, path)
    with pytest.raises(CheckpointInvalid, match="NaN or infinity"):
        open_source(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{not json", "header is not JSON"),
        (b"{" * 5000, "header is not JSON"),
        ({"a": 3}, "`a` is not described"),
        ({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}, "is of type 'F99'"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "has no shape"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, "has no place"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, "lies at 0 to 8 of 4 bytes"),
        ({"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 4]}}, "lies at 0 to 4 of 4 bytes"),
        ({"__metadata__": {"sketchbridge": "{"}}, "not plain JSON"),
        ({"__metadata__": {"sketchbridge": "[]"}}, "must be a dict"),
        ({"__metadata__": {"sketchbridge": 3}}, "must be a JSON object as text"),
        ({}, "no weights|no tensors|damaged"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_before_anything_is_made_of_it(
    header: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointInvalid, match=message):
        open_source(written(tmp_path / "file", header, bytes(4)))


def test_a_header_that_claims_more_than_there_is_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes((1 << 39).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointInvalid, match="its header claims 549,755,813,888 bytes"):
        open_source(path)
