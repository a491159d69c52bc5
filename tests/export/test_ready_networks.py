"""Networks that come with their own graph: TorchScript, torch.export and ONNX, painted with and exported."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from sketchbridge_export.artefacts.compose import paint_reference, write_interface_onnx
from sketchbridge_export.artefacts.int8_qdq import convolution_names, quantised_graph
from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.families import (
    IMAGENET_RANGE,
    TANH_CONVENTION,
    UNIT_RANGE,
    Convention,
    ValueRange,
)
from sketchbridge_export.parity import structural_similarity
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_export.sources import Checkpoint, ReadyNetwork, open_source
from tests.export.conftest import Pictures, Pix2PixUNet, paint, randomise
from tests.export.mutations import Runs, Stranger, onnx_network, unzipped, zipped

PICTURES = shipped_pictures()[2:7]


class Odd(Stranger):
    """With what recorded programs are known to trip over: sizes read from the picture, and views of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.down(x)))
        height = y.shape[2]
        y = nn.functional.interpolate(y, size=(2 * height, 2 * height), mode="bilinear", align_corners=False)
        y = self.last(nn.functional.pad(self.batch(y), [1, 1, 1, 1], mode="reflect"))
        return torch.tanh(y).view(x.shape[0], 3, 2 * height, 2 * height)


def save_traced(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(network, torch.zeros(1, 3, 256, 256)).save(str(path))  # type: ignore[no-untyped-call]


def save_scripted(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(path))  # type: ignore[no-untyped-call]


def serialised(program: torch.export.ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def save_exported(network: nn.Module, path: Path) -> None:
    path.write_bytes(serialised(torch.export.export(network, (torch.zeros(1, 3, 256, 256),))))


def save_exported_dynamic(network: nn.Module, path: Path) -> None:
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(network, (torch.zeros(2, 3, 256, 256),), dynamic_shapes=(batch,))
    path.write_bytes(serialised(program))


def save_onnx(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, 256, 256),), path, dynamo=True, verbose=False, external_data=True)


def save_old_onnx(network: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, 3, 256, 256),), str(path), dynamo=False, opset_version=11)


def ready(path: Path) -> ReadyNetwork:
    found = open_source(path)
    assert isinstance(found, ReadyNetwork), found
    return found


def run(path: Path, pictures: Pictures) -> Pictures:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["photo"], {"sketch": pictures})[0])


def difference(a: Pictures, b: Pictures) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("network", [Stranger, Odd])
@pytest.mark.parametrize(
    "save", [save_traced, save_scripted, save_exported, save_exported_dynamic, save_onnx, save_old_onnx]
)
def test_a_ready_network_paints_and_is_exported_as_the_network_it_was_made_from(
    save: Callable[[nn.Module, Path], None], network: type[nn.Module], tmp_path: Path
) -> None:
    module = randomise(network()).eval()
    save(module, tmp_path / "network")
    found = ready(tmp_path / "network")
    assert (found.input_channels, found.output_channels, found.native_size) == (3, 3, 256)
    expected = paint(module, PICTURES)
    assert expected.std() > 10, "a flat oracle proves nothing"
    assert difference(paint_reference(found, TANH_CONVENTION, PICTURES), expected) <= 1
    write_interface_onnx(found, TANH_CONVENTION, tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    for size in (1, 2, 5):
        assert difference(run(tmp_path / "model.onnx", PICTURES[:size]), expected[:size]) <= 1


@pytest.mark.parametrize("save", [save_traced, save_scripted, save_exported])
def test_a_network_that_a_family_knows_is_its_own_graph_unless_its_weights_are_asked_for(
    save: Callable[[nn.Module, Path], None], tmp_path: Path
) -> None:
    network = randomise(Pix2PixUNet(downs=8, ngf=2)).eval()
    save(network, tmp_path / "network")
    own = open_source(tmp_path / "network")
    assert isinstance(own, ReadyNetwork)
    assert own.notes[0].startswith("its own graph is exported")
    difference_to_eval = paint_reference(own, TANH_CONVENTION, PICTURES[:2]).astype(int) - paint(network, PICTURES[:2])
    assert np.abs(difference_to_eval).max() <= 1  # running statistics, as its graph has them
    rebuilt = open_source(tmp_path / "network", weights_first=True)
    assert isinstance(rebuilt, Checkpoint)
    assert rebuilt.notes[0].startswith("its weights are rebuilt by their family, as was asked")
    torch.testing.assert_close(dict(rebuilt.weights.tensors), dict(network.state_dict()))


@pytest.mark.parametrize("save", [save_traced, save_exported])
def test_the_weights_of_a_known_family_are_rebuilt_where_the_graph_can_not_be_exported(
    save: Callable[[nn.Module, Path], None], tmp_path: Path
) -> None:
    save(randomise(Pix2PixUNet(downs=8, ngf=2, dropout=False)).train(), tmp_path / "network")
    rebuilt = open_source(tmp_path / "network")
    assert isinstance(rebuilt, Checkpoint)
    assert "since its own graph can't be exported: " in rebuilt.notes[0]
    assert "training mode" in rebuilt.notes[0]


UNIT_BGR = Convention(UNIT_RANGE, UNIT_RANGE, channel_order="bgr")
IMAGENET_INVERTED = Convention(IMAGENET_RANGE, TANH_CONVENTION.output_range, line_polarity="light-on-dark")
UNEVEN = Convention(ValueRange(0.0, 255.0), ValueRange((-1.0, -0.5, 0.0), (1.0, 1.5, 0.5)), "bgr", "light-on-dark")


@pytest.mark.parametrize(
    ("convention", "side", "channels"),
    [
        (UNIT_BGR, 256, 3),
        (UNIT_BGR, 128, 3),
        (UNIT_BGR, "side", 1),
        (IMAGENET_INVERTED, 256, 3),  # three values don't fit one channel
        (IMAGENET_INVERTED, 128, 3),
        (UNEVEN, 256, 3),
        (UNEVEN, 128, 3),
        (UNEVEN, "side", 1),
    ],
)
def test_the_composed_interface_is_the_one_of_rebuilt_generators(
    convention: Convention, side: int | str, channels: int, tmp_path: Path
) -> None:
    path = tmp_path / "network.onnx"
    onnx.save_model(onnx_network(side=side, channels=channels), path)
    found = ready(path)
    write_interface_onnx(found, convention, tmp_path / "model.onnx")
    expected = paint_reference(found, convention, PICTURES)
    painted = run(tmp_path / "model.onnx", PICTURES)
    assert difference(painted, expected) <= 1
    assert expected.std() > 5


@pytest.mark.parametrize("batch", ["batch", 1])
def test_the_convolutions_of_a_ready_network_are_its_own_and_can_be_quantised(batch: int | str, tmp_path: Path) -> None:
    model = onnx_network(batch=batch, channels=1)  # without names of nodes, and fed gray
    onnx.save_model(model, tmp_path / "network")
    found = ready(tmp_path / "network")
    write_interface_onnx(found, TANH_CONVENTION, tmp_path / "model.onnx")
    expected = paint_reference(found, TANH_CONVENTION, PICTURES)
    assert len(convolution_names(onnx.load(tmp_path / "model.onnx"))) == 2
    onnx.save_model(quantised_graph(tmp_path / "model.onnx", calibration=PICTURES), tmp_path / "int8.onnx")
    painted = run(tmp_path / "int8.onnx", PICTURES)
    assert difference(painted, expected) > 0
    assert min(structural_similarity(a, b) for a, b in zip(expected, painted, strict=True)) > 0.98


def test_a_resize_recorded_with_one_picture_takes_more(tmp_path: Path) -> None:
    model = onnx_network(batch=1)
    model.graph.node[-1].output[0] = "painted"
    sizes = numpy_helper.from_array(np.array([1, 3, 128, 128], np.int64), "sizes")
    model.graph.initializer.append(sizes)
    model.graph.node.append(helper.make_node("Resize", ["painted", "", "", "sizes"], ["out"], mode="linear"))
    for axis in (2, 3):
        model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = 128
    onnx.save_model(model, tmp_path / "network")
    found = ready(tmp_path / "network")
    write_interface_onnx(found, TANH_CONVENTION, tmp_path / "model.onnx")
    expected = paint_reference(found, TANH_CONVENTION, PICTURES)
    assert difference(run(tmp_path / "model.onnx", PICTURES), expected) <= 1


def test_channels_last_networks_are_taken(tmp_path: Path) -> None:
    model = onnx_network(side=64)
    for node, (old, new) in zip(model.graph.node, [("x", "x_nchw"), *[("", "")] * 3, ("", "")], strict=True):
        node.input[:] = [new if name == old and old else name for name in node.input]
    model.graph.node[-1].output[0] = "out_nchw"
    model.graph.node.insert(0, helper.make_node("Transpose", ["x"], ["x_nchw"], perm=[0, 3, 1, 2]))
    model.graph.node.append(helper.make_node("Transpose", ["out_nchw"], ["out"], perm=[0, 2, 3, 1]))
    for value in (model.graph.input[0], model.graph.output[0]):
        dims = value.type.tensor_type.shape.dim
        dims[1].dim_value, dims[3].dim_value = 64, 3
    onnx.save_model(model, tmp_path / "nhwc")
    onnx.save_model(onnx_network(side=64), tmp_path / "nchw")
    last, first = ready(tmp_path / "nhwc"), ready(tmp_path / "nchw")
    assert (last.layout, first.layout) == ("nhwc", "nchw")
    write_interface_onnx(last, TANH_CONVENTION, tmp_path / "model.onnx")
    expected = paint_reference(first, TANH_CONVENTION, PICTURES)
    assert difference(paint_reference(last, TANH_CONVENTION, PICTURES), expected) == 0
    assert difference(run(tmp_path / "model.onnx", PICTURES), expected) <= 1


def test_a_network_with_the_house_interface_is_taken_as_it_is(tmp_path: Path) -> None:
    onnx.save_model(onnx_network(), tmp_path / "network")
    write_interface_onnx(ready(tmp_path / "network"), TANH_CONVENTION, tmp_path / "first.onnx")
    house = ready(tmp_path / "first.onnx")
    assert house.house
    assert house.notes == ("it shows the house interface already",)
    write_interface_onnx(house, Convention(UNIT_RANGE, UNIT_RANGE), tmp_path / "second.onnx")
    expected = run(tmp_path / "first.onnx", PICTURES)
    assert difference(run(tmp_path / "second.onnx", PICTURES), expected) == 0
    assert difference(paint_reference(house, TANH_CONVENTION, PICTURES), expected) == 0


def test_pictures_that_influence_each_other_are_refused(tmp_path: Path) -> None:
    model = onnx_network()
    model.graph.node[-1].output[0] = "alone"
    axes = numpy_helper.from_array(np.array([0], np.int64), "axes")
    model.graph.initializer.append(axes)
    model.graph.node.append(helper.make_node("ReduceMean", ["alone", "axes"], ["shared"], keepdims=1))
    model.graph.node.append(helper.make_node("Sub", ["alone", "shared"], ["out"]))
    model.opset_import[0].version = 18
    onnx.save_model(model, tmp_path / "network")
    with pytest.raises(CheckpointInvalid, match="influence each other"):
        write_interface_onnx(ready(tmp_path / "network"), TANH_CONVENTION, tmp_path / "model.onnx")


def test_a_batch_that_can_not_be_opened_is_refused(tmp_path: Path) -> None:
    model = onnx_network(batch=1)
    model.graph.node[-1].output[0] = "open"
    noise = np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(noise, "noise"))
    model.graph.node.append(helper.make_node("Concat", ["open", "noise"], ["pair"], axis=1))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 3], np.int64), "bounds"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 6, 1, 1), np.float32), "mix"))
    model.graph.node.append(helper.make_node("Conv", ["pair", "mix"], ["out"]))
    onnx.save_model(model, tmp_path / "network")
    with pytest.raises(CheckpointInvalid, match="can't take several pictures at once"):
        write_interface_onnx(ready(tmp_path / "network"), TANH_CONVENTION, tmp_path / "model.onnx")


def _set(model: onnx.ModelProto, axes: dict[int, int]) -> None:
    for value in (model.graph.input[0], model.graph.output[0]):
        for axis, size in axes.items():
            value.type.tensor_type.shape.dim[axis].dim_value = size


def _keep_outside(model: onnx.ModelProto, place: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=place))


def _diverge(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = np.full(len(tensor.raw_data) // 4, np.nan, np.float32).tobytes()


def _take_integers(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    model.graph.node[0].input[0] = "floats"
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["floats"], to=onnx.TensorProto.FLOAT))


CHANGES: dict[str, Callable[[onnx.ModelProto], Any]] = {
    "training": lambda model: model.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1)),
    "chance": lambda model: setattr(model.graph.node[3], "op_type", "RandomNormalLike"),
    "domain": lambda model: setattr(model.graph.node[1], "domain", "com.example"),
    "loop": lambda model: setattr(model.graph.node[1], "op_type", "Loop"),
    "opset": lambda model: setattr(model.opset_import[0], "version", 5),
    "nan": _diverge,
    "outside": lambda model: _keep_outside(model, "../secret"),
    "missing": lambda model: _keep_outside(model, "secret"),
    "oblong": lambda model: _set(model, {2: 64, 3: 32}),
    "huge": lambda model: _set(model, {2: 1 << 20, 3: 1 << 20}),
    "integers": _take_integers,
    "metadata": lambda model: model.metadata_props.append(onnx.StringStringEntryProto(key="sketchbridge", value="[")),
}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("training", "training mode: its pictures depend on the others"),
        ("chance", "depends on chance"),
        ("domain", "no standard operator"),
        ("loop", "a loop, which may never end"),
        ("opset", "is of opset 5"),
        ("nan", "NaN or infinity"),
        ("outside", "only files in its own folder are read"),
        ("missing", "which is not beside it"),
        ("oblong", "only squares"),
        ("huge", "only squares of 16 to 2048"),
        ("integers", "turns INT32"),
        ("metadata", "not plain JSON"),
    ],
)
def test_an_onnx_file_that_is_not_a_generators_is_refused_in_words(what: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "secret").write_bytes(bytes(1 << 10))
    model = onnx_network()
    CHANGES[what](model)
    path = tmp_path / "folder" / "network.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointInvalid, match=message):
        open_source(path)


def test_weights_beside_the_file_count_for_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    options: dict[str, Any] = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save_model(onnx_network(), path, **options)
    first = ready(path).sha256
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert ready(path).sha256 != first
    (tmp_path / "weights.bin").write_bytes(weights[:100])
    with pytest.raises(CheckpointInvalid, match=r"lies outside of `weights\.bin`"):
        open_source(path)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("scripted") / "network.pt"
    save_scripted(randomise(Stranger()).eval(), path)
    return unzipped(path.read_bytes())


def with_line(files: dict[str, bytes], line: str, *, method: str = "") -> bytes:
    name = next(name for name in files if b"(self.last)" in files[name] or b"last = self.last" in files[name])
    text = files[name].decode()
    body, _, last = text.rpartition("    return")
    return zipped({**files, name: f"{body}    {line}\n    return{last}{method}".encode()})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('_z = torch.from_file("canary", True, 1)', "calls `aten::from_file`"),
        ('torch.save(1, "canary")', "calls `aten::save`"),
        ("_z = ops.image.read_file()", "calls `image::read_file`"),
        ("_z = ops.aten.normal_(x)", "calls `aten::normal_`"),
        ("_f = (x).from_file", "uses `from_file`"),
        ("while True:\n      _z = 1", "an endless loop"),
        ("_z = fork(self)", "another thread"),
        ("_z = __torch__.torch.classes.evil.Runner", "compiled code"),
        ("_z = something(x)", "calls `something`"),
        ('_z = getattr(torch, "from_file")("canary")', "uses `getattr`"),
        ('_z = getattr(x, "from_file")("canary")', "uses `getattr`"),
        ('_z = torch; _z.from_file("canary")', "passes `torch` on under another name"),
        ("_z = ops; _z.image.forward(x)", "passes `ops` on under another name"),
        ("_z = ops.image; _z.forward(x)", "calls `image::forward`|calls `image::"),
    ],
)
def test_a_program_that_does_more_than_paint_is_not_run(
    line: str, message: str, scripted: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network.pt"
    path.write_bytes(with_line(scripted, line))
    with pytest.raises(CheckpointInvalid, match=message):
        open_source(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_program_that_runs_when_it_is_loaded_is_refused(scripted: dict[str, bytes], tmp_path: Path) -> None:
    method = "\n  def __setstate__(self, state: int) -> NoneType:\n    return None\n"
    (tmp_path / "a").write_bytes(with_line(scripted, "_z = 1", method=method))
    with pytest.raises(CheckpointInvalid, match="code when it is loaded"):
        open_source(tmp_path / "a")


def test_a_method_named_like_an_operator_opens_no_way_around(scripted: dict[str, bytes], tmp_path: Path) -> None:
    method = "\n  def from_file(self, x: Tensor) -> Tensor:\n    return x\n"
    (tmp_path / "a").write_bytes(with_line(scripted, '_z = (x).from_file("canary")', method=method))
    with pytest.raises(CheckpointInvalid, match="from_file"):
        open_source(tmp_path / "a")


def test_a_torchscript_archive_with_a_foreign_object_is_refused(scripted: dict[str, bytes], tmp_path: Path) -> None:
    name = next(name for name in scripted if name.endswith("/data.pkl"))
    hostile = pickle.dumps(Runs(print, "it ran"), protocol=2)
    (tmp_path / "a").write_bytes(zipped({**scripted, name: hostile}))
    with pytest.raises(CheckpointInvalid, match=r"holds an object, `__builtin__ print`"):
        open_source(tmp_path / "a")


def test_a_torchscript_archive_with_less_data_than_it_claims_is_refused(
    scripted: dict[str, bytes], tmp_path: Path
) -> None:
    name = next(name for name in scripted if name.endswith("/data/0"))
    (tmp_path / "a").write_bytes(zipped({**scripted, name: b""}))
    with pytest.raises(CheckpointInvalid, match="has 0 in the file"):
        open_source(tmp_path / "a")


@pytest.mark.parametrize("code", [bytes(1000), bytes(2 << 20), b"def f(:\n" * 10, b"(" * 1000])
def test_a_program_that_can_not_be_read_is_refused_at_once(
    code: bytes, scripted: dict[str, bytes], tmp_path: Path
) -> None:
    name = next(name for name in scripted if name.endswith(".py"))
    (tmp_path / "a").write_bytes(zipped({**scripted, name: code}))
    with pytest.raises(CheckpointInvalid, match=r"can't be read|more than 1,048,576 bytes of program|can't be loaded"):
        open_source(tmp_path / "a")


def test_a_network_saved_in_training_mode_is_refused(tmp_path: Path) -> None:
    save_traced(randomise(Stranger()).train(), tmp_path / "traced")
    with pytest.raises(CheckpointInvalid, match="saved in training mode"):
        open_source(tmp_path / "traced")
    save_exported(randomise(Stranger()).train(), tmp_path / "exported")
    with pytest.raises(CheckpointInvalid, match="training mode"):
        open_source(tmp_path / "exported")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("exported") / "network.pt2"
    save_exported(randomise(Stranger()).eval(), path)
    return unzipped(path.read_bytes())


@pytest.mark.parametrize(
    "target",
    ["torch.load", "torch.hub.load", "torch.ops.aten.from_file.default", "torch.ops.aten.randn.default", "os.system"],
)
def test_an_exported_program_with_another_operator_is_refused(
    target: str, exported: dict[str, bytes], tmp_path: Path
) -> None:
    name = next(name for name in exported if name.endswith("models/model.json"))
    changed = exported[name].replace(b"torch.ops.aten.tanh.default", target.encode())
    assert changed != exported[name]
    (tmp_path / "a.pt2").write_bytes(zipped({**exported, name: changed}))
    with pytest.raises(CheckpointInvalid, match="not among the operators that are let through"):
        open_source(tmp_path / "a.pt2")


@pytest.mark.parametrize(
    ("folder", "prefix"), [("weights", "weight_"), ("constants", "tensor_"), ("constants", "opaque_obj_")]
)
def test_a_pickle_in_an_exported_program_never_runs(
    folder: str, prefix: str, exported: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = next(name for name in exported if name.endswith(f"data/{folder}/model_{folder}_config.json"))
    described = json.loads(exported[config])
    described["config"]["x"] = {"path_name": f"{prefix}9", "is_param": False, "use_pickle": True, "tensor_meta": None}
    hostile = pickle.dumps(Runs(open, "canary", "w"))
    place = f"{config.rpartition('/')[0]}/{prefix}9"
    content = zipped({**exported, config: json.dumps(described).encode(), place: hostile})
    (tmp_path / "a.pt2").write_bytes(content)
    with pytest.raises(CheckpointInvalid, match="not run"):
        open_source(tmp_path / "a.pt2")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt2"]
    if prefix == "opaque_obj_":  # the control: PyTorch's own reader does run it
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            torch.export.load(tmp_path / "a.pt2")
        assert (tmp_path / "canary").exists()


def test_networks_that_turn_no_picture_into_a_picture_are_refused(tmp_path: Path) -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.last(self.first(x).mean((2, 3)))
            return result

    class Wide(nn.Conv2d):
        pass

    save_traced(Classifier().eval(), tmp_path / "classifier")
    with pytest.raises(CheckpointInvalid, match=r"into \(1, 10\); a generator paints a picture"):
        open_source(tmp_path / "classifier")
    save_exported(Wide(3, 7, 3).eval(), tmp_path / "wide")
    with pytest.raises(CheckpointInvalid, match="paints 7 channels"):
        open_source(tmp_path / "wide")
    save_exported(Wide(3, 1, 4, stride=2, padding=1).eval(), tmp_path / "judge")
    with pytest.raises(CheckpointInvalid, match="turns 256 x 256 pixels into 128 x 128, as discriminators do"):
        open_source(tmp_path / "judge")
