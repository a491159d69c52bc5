"""Files that Keras never wrote, and damaged ones: always one clear error."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from sketchbridge_export.errors import CheckpointInvalid, ExportError
from sketchbridge_export.families import Choices, find_family
from sketchbridge_export.sources.keras_file import load_keras
from sketchbridge_export.sources.saved_model import load_saved_model


def weights_file(path: Path, **datasets: NDArray[Any]) -> Path:
    """Weights of convolutions in the new format."""
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[f"layers/{name}/vars/0"] = values
    return path


KERNEL = np.ones((3, 3, 2, 2), np.float32)
CONFIG = {"class_name": "Sequential", "config": {"layers": []}}


def archive(path: Path, weights: bytes, config: object = CONFIG, *, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("model.weights.h5", weights)
    return path


def test_tensors_come_in_the_order_of_the_counters(tmp_path: Path) -> None:
    names = ("conv2d_10", "conv2d_2", "conv2d", "conv2d_transpose", "conv2d_1")
    path = weights_file(tmp_path / "w.h5", **dict.fromkeys(names, KERNEL))
    checkpoint = load_keras(path)
    assert [name.split("/")[1] for name in checkpoint.weights.tensors] == sorted(
        names, key=("conv2d", "conv2d_1", "conv2d_2", "conv2d_10", "conv2d_transpose").index
    )
    assert (checkpoint.weights.framework, checkpoint.weights.graph) == ("keras", None)
    assert checkpoint.format == "Keras weights (HDF5)"


def test_half_and_double_precision_become_single(tmp_path: Path) -> None:
    path = weights_file(tmp_path / "w.h5", a=KERNEL.astype(np.float16), b=KERNEL.astype(">f8"))
    assert {str(tensor.dtype) for tensor in load_keras(path).weights.tensors.values()} == {"torch.float32"}


def test_optimiser_state_and_random_state_are_left_out(tmp_path: Path) -> None:
    path = weights_file(tmp_path / "w.h5", conv2d=KERNEL)
    with h5py.File(path, "a") as file:
        file["optimizer/vars/0"] = np.int64(3)
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
    assert list(load_keras(path).weights.tensors) == ["layers/conv2d/vars/0"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((2, 2), np.nan, np.float32), "holds NaN or infinity"),
        (np.full((2, 2), 1e300), "holds NaN or infinity"),
        (np.ones((2, 2), np.int8), "is of type int8"),
        (np.array([b"text"]), "is of type"),
    ],
)
def test_what_is_no_finite_number_is_refused(values: NDArray[Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=reason):
        load_keras(weights_file(tmp_path / "w.h5", conv2d=values))


def test_links_to_elsewhere_are_not_followed(tmp_path: Path) -> None:
    secret = weights_file(tmp_path / "secret.h5", conv2d=KERNEL)
    for index, link in enumerate((h5py.ExternalLink(str(secret), "/layers"), h5py.SoftLink("/layers"))):
        path = tmp_path / f"{index}.h5"
        with h5py.File(path, "w") as file:
            file["layers"] = link
        with pytest.raises(CheckpointInvalid, match="a link to elsewhere"):
            load_keras(path)


def test_groups_that_hold_themselves_end(tmp_path: Path) -> None:
    path = weights_file(tmp_path / "w.h5", conv2d=KERNEL)
    with h5py.File(path, "a") as file:
        file["layers/conv2d/again"] = file["layers"]
    with pytest.raises(CheckpointInvalid, match="its groups hold themselves"):
        load_keras(path)


def test_data_kept_in_another_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(144))
    path = tmp_path / "external.h5"
    with h5py.File(path, "w") as file:
        outside = [(str(tmp_path / "secret.bin"), 0, 144)]
        file.create_dataset("layers/conv2d/vars/0", (3, 3, 2, 2), np.float32, external=outside)
    with pytest.raises(CheckpointInvalid, match="kept in another file"):
        load_keras(path)
    path = tmp_path / "virtual.h5"
    source = weights_file(tmp_path / "secret.h5", conv2d=KERNEL)
    layout = h5py.VirtualLayout(KERNEL.shape, np.float32)
    layout[...] = h5py.VirtualSource(str(source), "layers/conv2d/vars/0", KERNEL.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("layers/conv2d/vars/0", layout)
    with pytest.raises(CheckpointInvalid, match="kept in another file"):
        load_keras(path)


def test_a_small_file_that_claims_much_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    for name, options in (("never written", {}), ("compressed", {"compression": "gzip", "chunks": (1, 1024)})):
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("layers/conv2d/vars/0", (2**20, 1024), np.float32, **options)
        assert path.stat().st_size < 100_000
        with pytest.raises(CheckpointInvalid, match=r"stores fewer|is compressed"):
            load_keras(path)
    with pytest.raises(CheckpointInvalid, match=r"has .* bytes; at most 1,000 are read"):
        load_keras(weights_file(tmp_path / "w.h5", conv2d=KERNEL), max_bytes=1000)


def test_an_archive_that_unpacks_to_much_more_than_it_has_is_refused(tmp_path: Path) -> None:
    bomb = archive(tmp_path / "bomb.keras", bytes(2**24), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointInvalid, match="unpacks to 16,777,"):
        load_keras(bomb)


def test_an_archive_without_its_parts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "half.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")
    with pytest.raises(CheckpointInvalid, match=r"holds no `model\.weights\.h5`"):
        load_keras(path)
    with pytest.raises(CheckpointInvalid, match="is no HDF5 file"):
        load_keras(archive(path, b"pickle"))
    weights = weights_file(tmp_path / "w.h5", conv2d=KERNEL).read_bytes()
    with pytest.raises(CheckpointInvalid, match="is a list, expected an object"):
        load_keras(archive(path, weights, []))
    deep = path.with_name("deep.keras")
    with zipfile.ZipFile(deep, "w") as file:
        file.writestr("config.json", "[" * 100_000)
        file.writestr("model.weights.h5", weights)
    with pytest.raises(CheckpointInvalid, match=r"The configuration in .* is damaged"):
        load_keras(deep)


def test_what_is_not_of_keras_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    path.write_bytes(b"something else")
    with pytest.raises(CheckpointInvalid, match="was not written by Keras"):
        load_keras(path)
    with h5py.File(path, "w") as file:
        file["measurements"] = io.BytesIO(b"x").getvalue()
    with pytest.raises(CheckpointInvalid):
        load_keras(path)
    with h5py.File(path, "w"):
        pass
    with pytest.raises(CheckpointInvalid, match="holds no weights that Keras saved; its entries are: none"):
        load_keras(path)


def legacy_file(path: Path) -> Path:
    """A convolution and a normalisation as Keras 2 saves them, with a configuration."""
    layers = [
        {"class_name": "InputLayer", "config": {"name": "in", "batch_input_shape": [None, 64, 64, 2]}},
        {"class_name": "Conv2D", "config": {"name": "c", "filters": 2, "kernel_size": [3, 3], "padding": "same"}},
        {"class_name": "BatchNormalization", "config": {"name": "b", "axis": [3], "epsilon": 0.001}},
    ]
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": layers}})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"c", b"b"]
        for layer, names in (("c", ("kernel", "bias")), ("b", ("gamma", "beta", "moving_mean", "moving_variance"))):
            own = group.create_group(layer)
            own.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in names]
            for name in names:
                own[f"{layer}/{name}:0"] = KERNEL if name == "kernel" else np.ones(2, np.float32)
    return path


def test_lists_of_names_that_continue_in_further_attributes_are_read(tmp_path: Path) -> None:
    path = legacy_file(tmp_path / "model.h5")
    before = load_keras(path)
    assert find_family(before.weights).name == "keras_model"
    with h5py.File(path, "a") as file:
        del file["model_weights"].attrs["layer_names"]
        file["model_weights"].attrs["layer_names0"] = [b"c"]
        file["model_weights"].attrs["layer_names1"] = [b"b"]
    assert list(load_keras(path).weights.tensors) == list(before.weights.tensors)
    with h5py.File(path, "a") as file:
        del file["model_weights"].attrs["layer_names0"]
    with pytest.raises(CheckpointInvalid, match="the attribute 'layer_names' is missing"):
        load_keras(path)


def test_a_weight_that_is_named_but_not_there_is_refused(tmp_path: Path) -> None:
    path = legacy_file(tmp_path / "model.h5")
    with h5py.File(path, "a") as file:
        del file["model_weights/c/c/bias:0"]
    with pytest.raises(CheckpointInvalid, match=r"is damaged: `c/bias:0` is missing"):
        load_keras(path)
    with h5py.File(path, "a") as file:
        file["model_weights/c"].attrs["weight_names"] = [b"c/kernel:0", b"../b/b/gamma:0"]
    with pytest.raises(CheckpointInvalid, match=r"is damaged"):
        load_keras(path)


def outcome(path: Path) -> tuple[str, str]:
    try:
        weights = load_keras(path).weights
        find_family(weights).rebuild(weights, Choices())
    except ExportError as exc:
        return type(exc).__name__, str(exc)
    return "taken", ""


def test_damage_anywhere_gives_one_clear_error(tmp_path: Path) -> None:
    weights_file(tmp_path / "new.h5", conv2d=KERNEL, conv2d_1=KERNEL)
    legacy_file(tmp_path / "old.h5")
    archive(tmp_path / "whole.keras", (tmp_path / "new.h5").read_bytes())
    numbers = np.random.default_rng(0)
    seen = set()
    for name in ("new.h5", "old.h5", "whole.keras"):
        good = (tmp_path / name).read_bytes()
        for count in (0, 1, 5, 40) * 4:
            bad = bytearray(good)
            for place in numbers.integers(8, 4096, count):
                bad[place % len(bad)] = numbers.integers(256)
            (tmp_path / "bad").write_bytes(bad if count else bad[: numbers.integers(1, len(bad))])
            seen.add(outcome(tmp_path / "bad"))
    assert {"CheckpointInvalid", "FamilyUnknown"} <= {kind for kind, _ in seen}
    assert not any("\n" in text for _, text in seen)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bad", "new.h5", "old.h5", "whole.keras"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [("import time; time.sleep(60)", "took more than 1 s"), ("import os; os.abort()", "what reads it failed")],
)
def test_a_reader_that_hangs_or_dies_is_the_files_fault(
    code: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weights_file(tmp_path / "w.h5", conv2d=KERNEL)
    (tmp_path / "hdf5_variables.py").write_text(code)
    monkeypatch.setattr("sketchbridge_export.sources.apart.__file__", str(tmp_path / "apart.py"))
    monkeypatch.setattr("sketchbridge_export.sources.keras_file._TIMEOUT_S", 1.0)
    with pytest.raises(CheckpointInvalid, match=reason):
        load_keras(path)


def test_a_folder_that_tensorflow_did_not_write_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="a folder without a SavedModel or a TensorFlow checkpoint"):
        load_saved_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(CheckpointInvalid, match="a SavedModel without variables"):
        load_saved_model(tmp_path)
    (tmp_path / "variables").mkdir()
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "variables" / "variables.index").write_bytes(bytes(range(256)))
    with pytest.raises(CheckpointInvalid, match="is damaged: what reads it failed"):
        load_saved_model(tmp_path)


def test_without_tensorflow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "variables.index").write_bytes(b"index")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(CheckpointInvalid, match=r"pip install 'sketchbridge\[savedmodel\]'"):
        load_saved_model(tmp_path)


@pytest.mark.parametrize("metadata", [b"\x0a", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"\xff" * 20, b"\x0a\x05\x2a\x7f"])
def test_damaged_metadata_of_keras_2_is_refused(metadata: bytes, tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    (tmp_path / "keras_metadata.pb").write_bytes(metadata)
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "variables.index").write_bytes(b"index")
    with pytest.raises(CheckpointInvalid, match=r"`keras_metadata.pb` in .* is damaged"):
        load_saved_model(tmp_path)
