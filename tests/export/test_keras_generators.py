"""Keras generators, in every format that Keras saves them, against what Keras itself paints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.errors import FamilyUnknown, OptionInvalid
from sketchbridge_export.families import (
    BYTE_RANGE,
    FAMILIES,
    TANH_CONVENTION,
    TANH_RANGE,
    UNIT_RANGE,
    Choices,
    Convention,
    Generator,
    NormMode,
    ValueRange,
    Weights,
    find_family,
)
from sketchbridge_export.families.keras_model import recognise
from sketchbridge_export.families.layers import FixedDropout, NormalisedConvolution, fold_norms
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_export.sources import Checkpoint, open_source
from sketchbridge_export.sources.saved_model import load_saved_model
from tests.export.conftest import Pictures

PICTURES = shipped_pictures()[2:5]
NETWORKS = ("tutorial", "brownlee", "pooling", "pooling_transposed")
FILES = (".keras", ".h5", ".weights.h5", "_keras2.h5", "_keras2_weights.h5")
RECIPES = {
    "tutorial": "keras_tutorial_unet",
    "brownlee": "keras_brownlee_unet",
    "pooling": "keras_pooling_unet",
    "pooling_transposed": "keras_pooling_unet",
}


@pytest.fixture(scope="session")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Keras saved and painted; see keras_networks.py."""
    folder = tmp_path_factory.mktemp("keras")
    np.save(folder / "pictures.npy", PICTURES)
    script = Path(__file__).with_name("keras_networks.py")
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def painted(folder: Path, name: str) -> Pictures:
    with np.load(folder / "painted.npz") as archive:
        result: Pictures = archive[name]
    assert result.std() > 10, "a flat oracle proves nothing"
    return result


def opened(path: Path) -> Checkpoint:
    source = open_source(path)
    assert isinstance(source, Checkpoint)
    return source


def pictures_for(name: str) -> Pictures:
    return np.repeat(PICTURES[..., :1], 3, axis=3) if name.startswith("pooling") else PICTURES


def interface(weights: Weights, choices: Choices) -> tuple[Generator, GeneratorInterface]:
    family = find_family(weights)
    generator = family.rebuild(weights, choices)
    return generator, GeneratorInterface(generator, generator.convention or family.convention).eval()


def assert_paints_the_same(weights: Weights, name: str, folder: Path, norm: NormMode | None, kind: str) -> None:
    generator, shown = interface(weights, Choices(norm=norm))
    assert generator.norm == kind
    expected = painted(folder, f"{name} {kind}")
    with torch.no_grad():
        alone = torch.cat([shown(torch.from_numpy(picture[None])) for picture in pictures_for(name)]).numpy()
        together = shown(torch.from_numpy(pictures_for(name))).numpy()
    assert np.abs(alone.astype(int) - expected.astype(int)).max() <= 1
    assert np.abs(together.astype(int) - alone.astype(int)).max() <= 1  # a picture must not depend on its company


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_file_of_a_keras_generator_paints_what_keras_paints(name: str, suffix: str, keras_files: Path) -> None:
    checkpoint = opened(keras_files / f"{name}{suffix}")
    assert find_family(checkpoint.weights).name == (RECIPES[name] if "weights" in suffix else "keras_model")
    if name.startswith("pooling"):
        assert_paints_the_same(checkpoint.weights, name, keras_files, None, "none")
    else:
        assert_paints_the_same(checkpoint.weights, name, keras_files, None, "instance")
        assert_paints_the_same(checkpoint.weights, name, keras_files, "running", "running")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        pytest.param("tutorial_export", "tutorial", id="tutorial, model.export"),
        pytest.param("tutorial_tracked", "tutorial", id="tutorial, tf.saved_model.save"),
        pytest.param("tutorial_checkpoints", "tutorial", id="tutorial, the checkpoint it saves itself"),
        pytest.param("brownlee_export", "brownlee", id="Brownlee, model.export"),
        pytest.param("pooling_export", "pooling", id="pooling, model.export"),
    ],
)
def test_a_folder_of_tensorflow_paints_what_keras_paints(folder: str, name: str, keras_files: Path) -> None:
    weights = load_saved_model(keras_files / folder).weights
    kind = "none" if name.startswith("pooling") else "instance"
    assert_paints_the_same(weights, name, keras_files, None, kind)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a Protocol Buffers message."""
    length, size = len(content), b""
    while length > 127:
        size += bytes([length & 127 | 128])
        length >>= 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def marked(value: Any) -> Any:
    """A configuration as Keras 2 writes it into a SavedModel: tuples and shapes are marked."""
    if isinstance(value, dict):
        return {
            key: {"class_name": "__tuple__" if key == "strides" else "TensorShape", "items": part}
            if key in ("strides", "batch_input_shape")
            else marked(part)
            for key, part in value.items()
        }
    return [marked(part) for part in value] if isinstance(value, list) else value


def test_the_metadata_of_a_keras_2_saved_model_is_its_configuration(keras_files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    shutil.copytree(keras_files / "tutorial_tracked", folder)
    with h5py.File(keras_files / "tutorial_keras2.h5") as file:
        config = marked(json.loads(file.attrs["model_config"]))
    nodes = [(b"root.layer-1", b"_tf_keras_layer", {}), (b"root", b"_tf_keras_network", {"name": "model", **config})]
    message = b""
    for place, identifier, said in nodes:
        node = b"\x10\x00" + field(3, place) + field(4, identifier) + field(5, json.dumps(said).encode())
        message += field(1, node)
    (folder / "keras_metadata.pb").write_bytes(message)
    checkpoint = opened(folder)
    assert (checkpoint.format, find_family(checkpoint.weights).name) == ("TensorFlow SavedModel", "keras_model")
    assert checkpoint.sha256 != load_saved_model(keras_files / "tutorial_tracked").sha256
    assert_paints_the_same(checkpoint.weights, "tutorial", keras_files, None, "instance")


@pytest.mark.parametrize(
    ("name", "norm"), [("tutorial", "running"), ("tutorial", "instance"), ("brownlee", "instance"), ("pooling", None)]
)
def test_the_onnx_artefact_of_a_keras_generator_paints_what_keras_paints(
    name: str, norm: NormMode | None, keras_files: Path, tmp_path: Path
) -> None:
    _, shown = interface(opened(keras_files / f"{name}.keras").weights, Choices(norm=norm))
    write_onnx(shown, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    expected = painted(keras_files, f"{name} {norm or 'none'}")
    for size in (1, 3):
        found = np.asarray(session.run(["photo"], {"sketch": pictures_for(name)[:size]})[0])
        assert np.abs(found.astype(int) - expected[:size].astype(int)).max() <= 1


def test_each_layer_computes_what_keras_computes(keras_files: Path) -> None:
    wrong = []
    with np.load(keras_files / "zoo.npz") as archive:
        fed = torch.from_numpy(archive["fed"]).permute(0, 3, 1, 2)
        names = [name for name in archive.files if name != "fed"]
        assert len(names) > 40
        for name in names:
            weights = opened(keras_files / "zoo" / f"{name}.keras").weights
            assert recognise(weights).matches, (name, recognise(weights).why)
            generator = FAMILIES["keras_model"].rebuild(weights, Choices())
            expected = torch.from_numpy(archive[name]).permute(0, 3, 1, 2)
            for module in (generator.module, fold_norms(generator.module)):
                found = module(fed).detach()
                if found.shape != expected.shape or not torch.allclose(found, expected, atol=2e-5, rtol=1e-4):
                    wrong.append(name)
    assert wrong == []


def test_a_norm_behind_a_convolution_can_be_folded_and_another_not(keras_files: Path) -> None:
    def count(name: str, kind: type[nn.Module]) -> int:
        weights = opened(keras_files / "zoo" / f"{name}.keras").weights
        module = fold_norms(FAMILIES["keras_model"].rebuild(weights, Choices()).module)
        return sum(isinstance(part, kind) for part in module.modules())

    assert (count("conv, norm", NormalisedConvolution), count("conv, norm", nn.BatchNorm2d)) == (1, 0)
    assert (count("transposed, norm", NormalisedConvolution), count("transposed, norm", nn.BatchNorm2d)) == (1, 0)
    assert count("conv, relu, norm", nn.BatchNorm2d) == 1
    assert count("conv, norm, norm", nn.BatchNorm2d) == 1
    assert count("conv used twice", nn.BatchNorm2d) == 1


def test_dropout_is_off_unless_a_seed_asks_for_the_same_noise_every_time(keras_files: Path) -> None:
    weights = opened(keras_files / "tutorial.keras").weights
    still, _ = interface(weights, Choices(norm="running"))
    noisy, shown = interface(weights, Choices(norm="running", dropout_seed=1))
    again, shown_again = interface(weights, Choices(norm="running", dropout_seed=1))
    assert (still.dropout, noisy.dropout, again.dropout) == ("off", "seed 1", "seed 1")
    masks = [part.mask for part in noisy.module.modules() if isinstance(part, FixedDropout)]
    assert [tuple(mask.shape) for mask in masks] == [(1, 16, 2, 2), (1, 16, 4, 4), (1, 16, 8, 8)]
    x = torch.from_numpy(PICTURES)
    assert torch.equal(shown(x), shown_again(x))
    assert not torch.equal(still.module(torch.zeros(1, 3, 256, 256)), noisy.module(torch.zeros(1, 3, 256, 256)))


def test_dropout_can_not_be_asked_of_a_network_without(keras_files: Path) -> None:
    weights = opened(keras_files / "pooling_transposed.keras").weights
    with pytest.raises(OptionInvalid, match="no dropout to seed"):
        interface(weights, Choices(dropout_seed=1))
    with pytest.raises(OptionInvalid, match="no batch normalisation to choose for"):
        interface(weights, Choices(norm="running"))


def test_ranges_follow_the_last_activation(keras_files: Path) -> None:
    tanh, _ = interface(opened(keras_files / "brownlee.keras").weights, Choices())
    sigmoid, _ = interface(opened(keras_files / "pooling.weights.h5").weights, Choices(activation="sigmoid"))
    assert tanh.convention == TANH_CONVENTION
    assert sigmoid.convention == Convention(UNIT_RANGE, UNIT_RANGE)
    with pytest.raises(OptionInvalid, match="end in 'tanh'"):
        interface(opened(keras_files / "brownlee.keras").weights, Choices(activation="sigmoid"))


def small(*layers: dict[str, object]) -> Weights:
    """A Sequential model of layers without weights, as Keras describes it."""
    start = {"class_name": "InputLayer", "config": {"name": "in", "batch_shape": [None, 64, 64, 3]}}
    return Weights({}, framework="keras", graph={"class_name": "Sequential", "config": {"layers": [start, *layers]}})


def test_rescaling_at_both_ends_means_pictures_of_bytes() -> None:
    weights = small(
        {"class_name": "Rescaling", "config": {"name": "a", "scale": 1 / 127.5, "offset": -1.0}},
        {"class_name": "Activation", "config": {"name": "b", "activation": "tanh"}},
        {"class_name": "Rescaling", "config": {"name": "c", "scale": 127.5, "offset": 127.5}},
    )
    generator, _ = interface(weights, Choices())
    assert generator.convention == Convention(BYTE_RANGE, ValueRange(0.0, 255.0))
    plain, _ = interface(small({"class_name": "Activation", "config": {"name": "b", "activation": "tanh"}}), Choices())
    assert plain.convention == Convention(TANH_RANGE, TANH_RANGE)


def test_a_model_that_takes_any_size_paints_256_pixels_or_what_is_asked(keras_files: Path) -> None:
    weights = opened(keras_files / "any_size.keras").weights
    assert interface(weights, Choices())[0].native_size == 256
    generator, _ = interface(weights, Choices(size=512))
    assert generator.native_size == 512
    assert generator.module(torch.zeros(1, 3, 512, 512)).shape == (1, 3, 512, 512)
    with pytest.raises(OptionInvalid, match="size is 100, but then layer"):
        interface(weights, Choices(size=100))
    with pytest.raises(OptionInvalid, match="this network takes 256 x 256 pixels"):
        interface(opened(keras_files / "tutorial.keras").weights, Choices(size=512))
    with pytest.raises(OptionInvalid, match="multiples of 256 pixels"):
        interface(opened(keras_files / "tutorial.weights.h5").weights, Choices(size=128))


@pytest.mark.parametrize(
    ("name", "looks_like"),
    [
        ("discriminator.keras", r"256 x 256 pixels into 16 x 16 values of 1 channels: it looks like a discriminator"),
        ("shallow discriminator.keras", r"into 128 x 128 values of 1 channels: it looks like a discriminator"),
        ("conditional discriminator.keras", "takes 2 inputs: it looks like a conditional discriminator"),
        ("classifier.keras", "looks like a classifier or a discriminator"),
        ("latent.keras", "looks like a generator that starts from a latent vector"),
        ("composite.keras", "gives 2 results: it looks like a GAN composite"),
        ("segmentation.keras", "looks like a segmentation network"),
        ("lambda.keras", "is a Lambda, which runs code that the file brings along; it is not run"),
        ("lambda.h5", "is a Lambda, which runs code that the file brings along; it is not run"),
    ],
)
def test_what_is_no_generator_is_refused_with_what_it_looks_like(name: str, looks_like: str, keras_files: Path) -> None:
    with pytest.raises(FamilyUnknown, match=looks_like):
        find_family(opened(keras_files / "strangers" / name).weights)


def test_a_weight_of_another_shape_is_named_with_both_shapes(keras_files: Path) -> None:
    weights = opened(keras_files / "tutorial.keras").weights
    tensors = dict(weights.tensors)
    tensors["layers/sequential_1/layers/conv2d/vars/0"] = torch.zeros(3, 3, 2, 4)
    with pytest.raises(FamilyUnknown, match=r"has a kernel of shape \(3, 3, 2, 4\), expected \(4, 4, 2, 4\)"):
        find_family(Weights(tensors, framework="keras", graph=weights.graph))


def test_a_missing_and_an_extra_weight_are_named(keras_files: Path) -> None:
    weights = opened(keras_files / "tutorial.keras").weights
    tensors = dict(weights.tensors) | {"layers/dense/vars/0": torch.zeros(2, 2)}
    with pytest.raises(FamilyUnknown, match="`layers/dense/vars/0` and 0 more belong to no layer"):
        find_family(Weights(tensors, framework="keras", graph=weights.graph))
    del tensors["layers/dense/vars/0"], tensors["layers/conv2d_transpose/vars/1"]
    with pytest.raises(FamilyUnknown, match="the bias of layer `conv2d_transpose_7` is missing"):
        find_family(Weights(tensors, framework="keras", graph=weights.graph))


def test_weights_in_another_order_than_the_layers_are_refused(keras_files: Path) -> None:
    weights = opened(keras_files / "brownlee_keras2.h5").weights
    backwards = dict(reversed(list(weights.tensors.items())))
    with pytest.raises(FamilyUnknown, match=r"is stored where the kernel of layer `conv2d.*` is due"):
        find_family(Weights(backwards, framework="keras", graph=weights.graph))


def test_no_two_families_claim_the_same_keras_weights(keras_files: Path) -> None:
    for name in NETWORKS:
        for suffix in FILES:
            weights = opened(keras_files / f"{name}{suffix}").weights
            claims = [family.name for family in FAMILIES.values() if family.recognise(weights).matches]
            assert len(claims) == 1, (name, suffix, claims)
