"""A file is known by its content, whatever it is called."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import pytest
import torch

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources import Checkpoint, keras_file, open_source
from tests.export.conftest import Pix2PixUNet, randomise

UNET = dict(randomise(Pix2PixUNet(downs=5, ngf=2)).state_dict())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("name", ["net.onnx", "net.safetensors", "net.h5", "net"])
def test_what_torch_save_wrote_is_read_under_any_name(name: str, zipped: bool, tmp_path: Path) -> None:
    torch.save(UNET, tmp_path / name, _use_new_zipfile_serialization=zipped)
    checkpoint = open_source(tmp_path / name)
    assert isinstance(checkpoint, Checkpoint)
    torch.testing.assert_close(dict(checkpoint.weights.tensors), UNET)
    assert checkpoint.format == "torch.save"


def test_keras_files_go_to_their_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int]] = []

    def load_keras(path: Path, *, max_bytes: int) -> str:
        asked.append((path, max_bytes))
        return "read"

    monkeypatch.setattr(keras_file, "load_keras", load_keras)
    with h5py.File(tmp_path / "a", "w") as file:
        file["x"] = [1]
    with zipfile.ZipFile(tmp_path / "b", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", "")
    found: list[object] = [open_source(tmp_path / name, max_bytes=10_000) for name in "ab"]
    assert found == ["read", "read"]
    assert asked == [(tmp_path / "a", 10_000), (tmp_path / "b", 10_000)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"epoch,loss\n1,0.5\n", r"was not written by torch.save.*begins with b'epoch,lo'"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html>", "web page"),
        (b"GGUF\x03\x00", "language models"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
        (b"\xff\xd8\xff\xe0", "a picture"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"\x80\x04\x95\x00", "Python pickle that torch.save did not write"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite"),
        (bytes(257) + b"ustar\x0000" + bytes(250), "tar archive"),
        (b"\x08\x07\x12\x00rubbish", "neither a checkpoint nor ONNX"),
        (b"PK\x03\x04 but no more", "truncated or damaged"),
        (b"\x89HDF\r\n\x1a\n but no more", "."),
    ],
)
def test_a_stranger_is_refused_for_what_it_is(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=message):
        open_source(tmp_path / "file.pth")


def test_foreign_and_doubled_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("photos/a.png", b"")
    with pytest.raises(CheckpointInvalid, match=r"torch.save did not write; it holds `a.png`"):
        open_source(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"one")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/data.pkl", b"two")
    with pytest.raises(CheckpointInvalid, match="two entries of one name"):
        open_source(path)


def test_folders_missing_files_and_odd_names_are_refused(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "nothing", "does not exist"),
        (Path("/dev/zero"), "no ordinary file"),
        (tmp_path / ("x" * 300), "can't be read: File name too long"),
    ):
        with pytest.raises(CheckpointInvalid, match=message):
            open_source(path)


def test_nothing_larger_than_the_limit_is_read(tmp_path: Path) -> None:
    torch.save(UNET, tmp_path / "a")
    with pytest.raises(CheckpointInvalid, match="at most 1,000 are read"):
        open_source(tmp_path / "a", max_bytes=1000)
    with zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(1 << 20))
    with pytest.raises(CheckpointInvalid, match="unpacks to 1,048,576 bytes"):
        open_source(tmp_path / "bomb", max_bytes=10_000)
