from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources import load_checkpoint

WEIGHTS = {"model.0.weight": torch.arange(6.0).reshape(2, 3), "model.0.count": torch.tensor(7)}


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.marker}",))


def saved(tmp_path: Path, content: object, *, zipped: bool = True) -> Path:
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_state_dict_is_read_with_the_files_digest(zipped: bool, tmp_path: Path) -> None:
    path = saved(tmp_path, WEIGHTS, zipped=zipped)
    checkpoint = load_checkpoint(path)
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.metadata == {}
    torch.testing.assert_close(dict(checkpoint.weights.tensors), WEIGHTS)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 5},
        lambda state: {"generator": state, "discriminator": {"a": torch.ones(1)}, "step": torch.tensor(3)},
        lambda state: {"model": {"netG": state}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"gen": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
    ],
    ids=["state_dict", "generator beside others", "two deep", "DataParallel", "compiled DataParallel"],
)
def test_the_generator_is_found_under_the_wrappers_of_training_scripts(wrap: Any, tmp_path: Path) -> None:
    torch.testing.assert_close(dict(load_checkpoint(saved(tmp_path, wrap(WEIGHTS))).weights.tensors), WEIGHTS)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.tensor([1.5], dtype=torch.bfloat16)})
    torch.testing.assert_close(load_checkpoint(path).weights.tensors["a"], torch.tensor([1.5]))


def test_eight_bit_weights_become_float32_and_their_nan_is_seen(tmp_path: Path) -> None:
    eight_bits = torch.tensor([1.5, -2.0]).to(torch.float8_e4m3fn)
    torch.testing.assert_close(
        load_checkpoint(saved(tmp_path, {"a": eight_bits})).weights.tensors["a"], torch.tensor([1.5, -2.0])
    )
    with pytest.raises(CheckpointInvalid, match="NaN or infinity"):
        load_checkpoint(saved(tmp_path, {"a": torch.tensor([float("nan")]).to(torch.float8_e4m3fn)}))


def test_the_digest_is_that_of_the_weights_even_if_the_file_is_replaced_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, WEIGHTS)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    load = torch.load

    def load_late(*arguments: Any, **options: Any) -> Any:
        other = tmp_path / "other.pth"
        torch.save({"a": torch.ones(1)}, other)
        other.replace(path)
        return load(*arguments, **options)

    monkeypatch.setattr(torch, "load", load_late)
    checkpoint = load_checkpoint(path)
    assert checkpoint.sha256 == digest
    torch.testing.assert_close(dict(checkpoint.weights.tensors), WEIGHTS)


def test_metadata_may_lie_beside_the_weights_themselves(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path, {**WEIGHTS, "sketchbridge": {"norm": "running"}}))
    assert checkpoint.metadata == {"norm": "running"}
    torch.testing.assert_close(dict(checkpoint.weights.tensors), WEIGHTS)


def test_the_checkpoints_own_metadata_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, {"sketchbridge": {"norm": "running", "epochs": 30}, "generator": WEIGHTS})
    assert load_checkpoint(path).metadata == {"norm": "running", "epochs": 30}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_hostile_pickle_is_refused_and_does_not_run(zipped: bool, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    path = saved(tmp_path, {"generator": WEIGHTS, "extra": Hostile(marker)}, zipped=zipped)
    with pytest.raises(CheckpointInvalid, match=r"holds a Python object, `posix\.system`"):
        load_checkpoint(path)
    assert not marker.exists()


def test_a_pickled_module_is_refused_with_the_way_out_and_no_unsafe_advice(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"Save it again as torch\.save\(generator\.state_dict\(\)") as caught:
        load_checkpoint(saved(tmp_path, nn.Conv2d(3, 3, 3)))
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused(kept: float, zipped: bool, tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.zeros(500)}, zipped=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointInvalid, match=r"truncated|damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"epoch,loss\n1,0.5\n2,0.4\n", "was not written by torch.save"),
        (b"\x80\x02" + bytes(range(256)), "damaged"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{}              ", "safetensors"),
    ],
    ids=["empty", "text", "garbage", "safetensors"],
)
def test_a_file_that_is_no_checkpoint_is_refused_for_what_it_is(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointInvalid, match=message):
        load_checkpoint(path)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="is a folder"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointInvalid, match="does not exist"):
        load_checkpoint(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointInvalid, match="no ordinary file"):
        load_checkpoint(Path("/dev/zero"))
    with pytest.raises(CheckpointInvalid, match="can't be read: File name too long"):
        load_checkpoint(tmp_path / (300 * "x"))


def test_torchscript_and_foreign_archives_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    for entry, message in (("constants.pkl", "TorchScript"), ("readme.txt", "torch.save did not write")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"archive/{entry}", b"")
        with pytest.raises(CheckpointInvalid, match=message):
            load_checkpoint(path)


def test_a_file_that_is_or_unpacks_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    with pytest.raises(CheckpointInvalid, match=r"unpacks to 1,048,576 bytes; at most 10,000"):
        load_checkpoint(path, max_bytes=10_000)
    with pytest.raises(CheckpointInvalid, match="at most 100 are read"):
        load_checkpoint(path, max_bytes=100)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list"),
        ({"epoch": 3}, "no weights of a generator; its entries are: 'epoch'"),
        ({"a": torch.ones(1), "b": "text"}, "mixes tensors with other things, such as 'b'"),
        ({"a": torch.tensor([1.0, float("nan")])}, "NaN or infinity"),
        ({"a": torch.zeros(1).expand(1000, 1000)}, "claims .1000, 1000. values but stores fewer"),
        ({"a": torch.zeros(2).to_sparse()}, "not a plain tensor"),
        ({"sketchbridge": {"a": torch.ones(1)}, "generator": WEIGHTS}, "not plain JSON"),
        ({"sketchbridge": "running", "generator": WEIGHTS}, "must be a dict"),
    ],
)
def test_contents_that_are_no_generators_weights_are_refused(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=message):
        load_checkpoint(saved(tmp_path, content))
