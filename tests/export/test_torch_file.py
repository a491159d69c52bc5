from __future__ import annotations

import argparse
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
from tests.export.conftest import Pix2PixUNet, randomise

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
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
        lambda state: {"gen": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
    ],
    ids=["state_dict", "generator beside others", "two deep", "DataParallel", "compiled", "compiled DataParallel"],
)
def test_the_generator_is_found_under_the_wrappers_of_training_scripts(wrap: Any, tmp_path: Path) -> None:
    torch.testing.assert_close(dict(load_checkpoint(saved(tmp_path, wrap(WEIGHTS))).weights.tensors), WEIGHTS)


UNET = dict(randomise(Pix2PixUNet(downs=5, ngf=2)).state_dict())
AVERAGE = {key: value + 1 for key, value in UNET.items()}
CRITIC = {"model.0.weight": torch.ones(1, 6, 4, 4)}


def prefixed(prefix: str, state: Any) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        {"netG": UNET, "netD": CRITIC, "optimizer_G": {"state": {}, "param_groups": []}, "epoch": 7},
        {"gen": UNET, "disc": CRITIC, "args": argparse.Namespace(lr=0.1)},
        {"state_dict": prefixed("generator.", UNET) | prefixed("discriminator.", CRITIC), "global_step": 3},
        {"state_dict": prefixed("netG.", UNET) | prefixed("netD.", CRITIC) | prefixed("vgg.", CRITIC)},
        {"state_dict": prefixed("model.", UNET) | prefixed("discriminator.", CRITIC)},
        {"state_dict": prefixed("model.", UNET) | prefixed("perceptual_loss.", CRITIC)},
        {"state_dict": prefixed("gen._orig_mod.module.", UNET) | prefixed("disc.", CRITIC)},
        {"state_dict": prefixed("model.", UNET)},
        {"model": prefixed("module._orig_mod.net.", UNET), "optimizer": {}},
        {"netG_A": UNET, "netD_A": CRITIC},
    ],
    ids=[
        "whole training",
        "with its options",
        "Lightning, generator and discriminator",
        "Lightning, netG and others",
        "Lightning, model and discriminator",
        "Lightning, model and a loss",
        "Lightning, compiled and distributed",
        "Lightning, model alone, which is a name inside the network too",
        "wrapped three times",
        "one direction of two",
    ],
)
def test_the_generators_own_names_come_out_of_whole_training_checkpoints(content: Any, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path, content))
    torch.testing.assert_close(dict(checkpoint.weights.tensors), UNET)


@pytest.mark.parametrize(
    "content",
    [
        {"generator": UNET, "generator_ema": AVERAGE},
        {"params": UNET, "params_ema": AVERAGE},
        {"state_dict": prefixed("generator.", UNET), "ema_state_dict": prefixed("generator.", AVERAGE)},
        {"G": UNET, "ema": {"decay": 0.99, "shadow": AVERAGE}},
        {"model": UNET, "model_ema": {"module": prefixed("module.", AVERAGE), "n": 3}},
        {"generator": UNET, "ema": {"n_averaged": torch.tensor(5)} | prefixed("module.", AVERAGE)},
        prefixed("online_model.", UNET) | prefixed("ema_model.", AVERAGE) | {"step": torch.tensor(4)},
        {"n_averaged": torch.tensor(5)} | prefixed("module.", AVERAGE),
        {"generator": {"weights": UNET}, "shadow": AVERAGE},
    ],
    ids=[
        "generator_ema",
        "params_ema",
        "whole modules",
        "shadow",
        "module",
        "AveragedModel beside",
        "one module",
        "AveragedModel",
        "two deep",
    ],
)
def test_an_averaged_copy_is_preferred_and_the_choice_is_noted(content: Any, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path, content))
    torch.testing.assert_close(dict(checkpoint.weights.tensors), AVERAGE)
    assert any("averaged" in note or "ema_model" in note for note in checkpoint.notes)


def test_an_average_of_the_parameters_alone_keeps_the_raw_statistics(tmp_path: Path) -> None:
    parameters = {name: tensor for name, tensor in AVERAGE.items() if "running" not in name and "num_b" not in name}
    checkpoint = load_checkpoint(saved(tmp_path, {"generator": UNET, "ema": {"shadow": parameters}}))
    torch.testing.assert_close(dict(checkpoint.weights.tensors), UNET | parameters)
    assert any(f"{len(UNET) - len(parameters)} tensors" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    "average", [{"other.weight": torch.ones(1)}, [torch.ones(1)], {"shadow_params": [torch.ones(1)]}]
)
def test_an_average_that_does_not_fit_is_left_aside_and_that_is_noted(average: Any, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(saved(tmp_path, {"generator": UNET, "ema": average}))
    torch.testing.assert_close(dict(checkpoint.weights.tensors), UNET)
    assert any("left the averaged copy" in note for note in checkpoint.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"netG_A": UNET, "netG_B": UNET}, "holds 2 generators, `netG_A`, `netG_B`, one for each direction"),
        ({"G_AB.weight": torch.ones(1), "G_BA.weight": torch.ones(1)}, "holds 2 generators"),
        ({"netD": CRITIC}, "only a discriminator's, `netD`"),
        ({"state": {}, "param_groups": []}, "an optimiser's state"),
    ],
)
def test_what_can_not_be_chosen_from_is_refused_in_words(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=message):
        load_checkpoint(saved(tmp_path, content))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
def test_a_file_saved_on_a_gpu_is_read_without_one(zipped: bool, tmp_path: Path) -> None:
    path = saved(tmp_path, WEIGHTS, zipped=zipped)
    on_cpu, on_gpu = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    if zipped:
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()}
        changed = [name for name in content if on_cpu in content[name]]
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data.replace(on_cpu, on_gpu))
        assert changed
    else:
        content_bytes = path.read_bytes()
        assert on_cpu in content_bytes
        path.write_bytes(content_bytes.replace(on_cpu, on_gpu))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)
    torch.testing.assert_close(dict(load_checkpoint(path).weights.tensors), WEIGHTS)


def train(network: nn.Module) -> nn.Module:
    """Let vectors and weights drift apart, as they do between steps of a training."""
    for _ in range(10):
        network(torch.randn(2, 4, 8, 8))
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if name.endswith(("weight_orig", "original", "original1", "weight_v")):
                tensor.add_(0.05 * torch.randn(tensor.shape))
    return network.eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.spectral_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.parametrizations.weight_norm,
    ],
    ids=["spectral", "spectral, parametrised", "weight", "weight, parametrised"],
)
@pytest.mark.parametrize(
    ("kind", "outputs"),
    [(nn.Conv2d, 6), (nn.ConvTranspose2d, 6), (nn.ConvTranspose2d, 4)],
    ids=["down", "up", "square up"],
)
def test_weights_stored_in_parts_are_multiplied_out_exactly(wrap: Any, kind: Any, outputs: int, tmp_path: Path) -> None:
    torch.manual_seed(0)  # which way a square one goes shows only where the vectors have learnt something
    part = kind(4, outputs, 3)
    transposed = {"dim": 1} if wrap is nn.utils.weight_norm and isinstance(part, nn.ConvTranspose2d) else {}
    network = train(nn.Sequential(wrap(part, **transposed)))
    checkpoint = load_checkpoint(saved(tmp_path, network.state_dict()))
    assert set(checkpoint.weights.tensors) == {"0.weight", "0.bias"}
    plain = kind(4, outputs, 3)
    plain.load_state_dict({key[2:]: value for key, value in checkpoint.weights.tensors.items()})
    x = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(plain(x), network(x), atol=1e-5, rtol=1e-5)
    assert any("multiplied out" in note for note in checkpoint.notes)


def test_a_pruned_weight_is_multiplied_with_its_mask(tmp_path: Path) -> None:
    state = {"a.weight_orig": torch.arange(4.0).reshape(2, 2), "a.weight_mask": torch.eye(2)}
    tensors = load_checkpoint(saved(tmp_path, state)).weights.tensors
    torch.testing.assert_close(dict(tensors), {"a.weight": torch.tensor([[0.0, 0.0], [0.0, 3.0]])})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a.weight_orig": torch.ones(2, 2)}, "computed in a way that is not known here"),
        ({"a.parametrizations.weight.original": torch.ones(2, 2)}, "computed in a way that is not known here"),
        (
            {"a.weight_orig": torch.ones(2, 3), "a.weight_u": torch.ones(5), "a.weight_v": torch.ones(3)},
            "its vectors of 5 and 3 values do not fit",
        ),
        (
            {"a.weight_orig": torch.eye(2), "a.weight_u": torch.tensor([1.0, 0]), "a.weight_v": torch.tensor([1.0, 0])},
            "can be read as a convolution's or as a transposed",
        ),
        ({"a.weight_g": torch.ones(3, 1), "a.weight_v": torch.ones(2, 2)}, "does not fit a weight"),
        ({"a.weight_g": torch.ones(2, 1), "a.weight_v": torch.zeros(2, 2)}, "divides by 0"),
    ],
)
def test_weights_in_parts_that_do_not_fit_are_refused(state: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=message):
        load_checkpoint(saved(tmp_path, state))


def rezipped(path: Path, changes: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, changes.get(name.partition("/")[2], data))
    return path


def test_a_storage_that_is_shorter_than_the_pickle_says_is_never_read_past_its_end(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.zeros(500), "b": torch.ones(3, dtype=torch.bfloat16)})
    assert load_checkpoint(path).weights.tensors["a"].shape == (500,)
    with pytest.raises(CheckpointInvalid, match="a tensor of 2,000 bytes has 1,996 in the file"):
        load_checkpoint(rezipped(path, {"data/0": bytes(1996)}))
    with pytest.raises(CheckpointInvalid, match="a tensor of 2,000 bytes has 0 in the file"):
        load_checkpoint(rezipped(path, {"data/0": b""}))


@pytest.mark.parametrize("name", ["a\nb", "x" * 600, "\0"])
def test_a_tensor_with_a_name_that_would_spoil_a_message_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="which no network gives") as caught:
        load_checkpoint(saved(tmp_path, {**WEIGHTS, name: torch.ones(1)}))
    assert str(caught.value).isprintable()


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
