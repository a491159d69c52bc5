"""The OpenVINO artefacts, run by OpenVINO itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from sketchbridge_export import ParityFailed
from sketchbridge_export.artefacts import openvino as artefact
from sketchbridge_export.artefacts.int8 import Quantised, quantise_openvino
from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.artefacts.openvino import Computing, paint_with_openvino, write_openvino
from sketchbridge_export.calibration import calibration_pictures
from sketchbridge_export.errors import CheckpointInvalid, OptionInvalid, RepositoryError
from sketchbridge_export.families import TANH_CONVENTION, Choices, Generator, find_family
from sketchbridge_export.families.family import Weights
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity import Pictures, measure, paint_alone
from sketchbridge_export.parity_pictures import shipped_pictures
from sketchbridge_export.quiet_openvino import openvino
from tests.export.conftest import INSTANCE, Pix2PixUNet, randomise


def interface_of(network: torch.nn.Module) -> GeneratorInterface:
    weights = Weights(dict(network.state_dict()), framework="torch")
    family = find_family(weights, name=None)
    return GeneratorInterface(family.rebuild(weights, Choices()), TANH_CONVENTION).eval()


@pytest.fixture(scope="module")
def interface(small_unet: torch.nn.Module) -> GeneratorInterface:
    return interface_of(small_unet)


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return shipped_pictures()


@pytest.fixture(scope="module")
def expected(interface: GeneratorInterface, pictures: Pictures) -> Pictures:
    return paint_alone(interface, pictures)


@pytest.fixture(scope="module")
def onnx_path(interface: GeneratorInterface, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(interface, path)
    return path


def ignore(_line: str) -> None:
    pass


def test_it_paints_what_the_checkpoint_paints_alone_and_in_batches(
    onnx_path: Path, pictures: Pictures, expected: Pictures, tmp_path: Path
) -> None:
    xml, weights = write_openvino(onnx_path, tmp_path)
    assert (xml.name, weights.name) == ("model.xml", "model.bin")
    found = measure(expected, paint_with_openvino(xml, precision="fp32"), pictures)
    assert [batch.batch_size for batch in found.batches] == [1, 2, 5]
    assert max(batch.max_levels for batch in found.batches) <= 1


def test_instance_statistics_keep_the_pictures_of_a_batch_apart(pictures: Pictures, tmp_path: Path) -> None:
    interface = interface_of(randomise(Pix2PixUNet(downs=8, ngf=4, norm=INSTANCE)))
    write_onnx(interface, tmp_path / "model.onnx")
    xml, _ = write_openvino(tmp_path / "model.onnx", tmp_path)
    found = measure(paint_alone(interface, pictures), paint_with_openvino(xml, precision="fp32"), pictures)
    assert max(batch.max_levels for batch in found.batches) <= 1


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_asked_precision_is_the_one_computed_in(onnx_path: Path, pictures: Pictures, precision: Computing) -> None:
    if not artefact.computes_in(precision):
        pytest.skip(f"this processor does not compute in {precision}")
    exact = paint_with_openvino(onnx_path, precision="fp32")(pictures[:2])
    rounded = paint_with_openvino(onnx_path, precision=precision)(pictures[:2])
    assert (exact != rounded).mean() > 0.005


def test_a_precision_that_the_processor_lacks_is_refused(onnx_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artefact, "computes_in", lambda precision: precision == "fp32")
    with pytest.raises(OptionInvalid, match="does not compute in bf16"):
        paint_with_openvino(onnx_path, precision="bf16")


def test_float16_weights_stay_float16(
    interface: GeneratorInterface, onnx_path: Path, pictures: Pictures, expected: Pictures, tmp_path: Path
) -> None:
    _, whole = write_openvino(onnx_path, tmp_path)
    whole_bytes = whole.stat().st_size
    write_onnx(interface, tmp_path / "half.onnx", weights="fp16")
    xml, half = write_openvino(tmp_path / "half.onnx", tmp_path)
    assert half.stat().st_size < 0.52 * whole_bytes
    assert measure(expected, paint_with_openvino(xml, precision="fp32"), pictures).batches[0].max_levels <= 3


def test_the_same_model_gives_the_same_bytes_and_says_nothing_of_this_machine(onnx_path: Path, tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        written.append([path.read_bytes() for path in write_openvino(onnx_path, tmp_path / name)])
    assert written[0] == written[1]
    for word in (onnx_path.parent, tmp_path, Path(__file__).parents[2], Path.home(), "site-packages", "Traceback"):
        assert str(word).encode() not in written[0][0]


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text("<net>")
    with pytest.raises(ParityFailed, match=r"can't read `.*model\.xml`"):
        paint_with_openvino(path, precision="fp32")


def test_a_model_with_other_names_or_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    shape = [1, 256, 256, 3]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["sketch"], ["picture"])],
        "copying",
        [helper.make_tensor_value_info("sketch", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("picture", TensorProto.UINT8, shape)],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "model.onnx"
    )
    with pytest.raises(ParityFailed, match=r"outputs are \[\('picture', 'u8', '\[1,256,256,3\]'\)\]"):
        paint_with_openvino(tmp_path / "model.onnx", precision="fp32")
    with pytest.raises(CheckpointInvalid, match="has no convolution"):
        quantise_openvino(
            tmp_path / "model.onnx",
            tmp_path,
            calibration=np.zeros((1, 256, 256, 3), np.uint8),
            pictures=np.zeros((1, 256, 256, 3), np.uint8),
            expected=np.zeros((1, 256, 256, 3), np.uint8),
            min_ssim=0.98,
            progress=ignore,
        )


def test_a_folder_that_is_none_is_an_error_of_ours(onnx_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="can't be written"):
        write_openvino(onnx_path, tmp_path / "file")


def test_eight_bits_come_close_are_a_quarter_and_the_same_each_time(
    onnx_path: Path, pictures: Pictures, expected: Pictures, tmp_path: Path
) -> None:
    _, whole = write_openvino(onnx_path, tmp_path)
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        found = quantise_openvino(
            onnx_path,
            tmp_path / name,
            calibration=pictures,
            pictures=pictures,
            expected=expected,
            min_ssim=0.5,
            progress=ignore,
        )
        written.append([path.read_bytes() for path in found.files])
    assert [path.name for path in found.files] == ["model_int8.xml", "model_int8.bin"]
    assert (found.layers, found.float_layers, found.tries) == (16, (), 1)
    assert found.files[1].stat().st_size < 0.3 * whole.stat().st_size
    assert written[0] == written[1]
    paint = paint_with_openvino(found.files[0], precision="int8")
    assert measure(expected, paint, pictures).batches[0].ssim == pytest.approx(found.ssim)
    assert found.ssim > 0.9


class Stack(torch.nn.Module):
    """Four convolutions, one of which has a channel a thousand times as strong as the others."""

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.Generator().manual_seed(5)
        steps = []
        for inputs, outputs in ((3, 8), (8, 8), (8, 8), (8, 3)):
            step = torch.nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
            torch.nn.init.normal_(step.weight, std=0.2, generator=numbers)
            steps.append(step)
        with torch.no_grad():
            steps[1].weight[0] *= 1000
            steps[2].weight[:, 0] *= 0.001
        self.steps = torch.nn.ModuleList(steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps[:3]:
            x = torch.nn.functional.leaky_relu(step(x), 0.2)
        return torch.tanh(self.steps[3](x))


@pytest.fixture(scope="module")
def stack() -> GeneratorInterface:
    return GeneratorInterface(Generator(Stack(), 3, 3, 256, "none", {}), TANH_CONVENTION).eval()


def test_the_costliest_layers_go_back_to_float_until_it_is_close_enough(
    stack: GeneratorInterface, pictures: Pictures, tmp_path: Path
) -> None:
    write_onnx(stack, tmp_path / "model.onnx")
    shown, wanted = pictures[:3], paint_alone(stack, pictures[:3])

    def quantise(min_ssim: float, progress: Callable[[str], None] = ignore) -> Quantised:
        return quantise_openvino(
            tmp_path / "model.onnx",
            tmp_path,
            calibration=shown,
            pictures=shown,
            expected=wanted,
            min_ssim=min_ssim,
            progress=progress,
        )

    coarse = quantise(0)
    between = (coarse.ssim + 1) / 2
    lines: list[str] = []
    fine = quantise(between, lines.append)
    assert fine.ssim >= between > coarse.ssim
    assert fine.float_layers[0] == "network.steps.2.weight"  # what the strong channel flows into
    assert len(fine.float_layers) < fine.layers == 4
    assert fine.tries == 1 + fine.layers + len(fine.float_layers)
    assert lines[-1] == f"with {len(fine.float_layers)} of 4 in float: SSIM {fine.ssim:.4f}"
    assert fine.as_json()["float_layers"] == list(fine.float_layers)


def test_what_cannot_come_close_enough_is_written_with_its_figures(
    stack: GeneratorInterface, pictures: Pictures, tmp_path: Path
) -> None:
    write_onnx(stack, tmp_path / "model.onnx")
    shown = pictures[:2]
    found = quantise_openvino(
        tmp_path / "model.onnx",
        tmp_path,
        calibration=shown,
        pictures=shown,
        expected=np.invert(paint_alone(stack, shown)),
        min_ssim=1,
        progress=ignore,
    )
    assert found.tries == 1 + 4 + 3  # all, each of four in float, then one to three
    assert found.ssim < 0.9
    assert all(path.stat().st_size for path in found.files)


def test_the_interface_stays_in_float(onnx_path: Path, pictures: Pictures, expected: Pictures, tmp_path: Path) -> None:
    found = quantise_openvino(
        onnx_path,
        tmp_path,
        calibration=pictures[:2],
        pictures=pictures[:2],
        expected=expected[:2],
        min_ssim=0,
        progress=ignore,
    )
    graph = openvino.Core().read_model(found.files[0])
    kinds = ("Convolution", "ConvolutionBackpropData", "Concat", "Relu", "PRelu")
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            users = {target.get_node().get_type_name() for target in node.output(0).get_target_inputs()}
            assert users <= set(kinds), node.get_friendly_name()


NO_CALLS = """
import sys
seen = []
watched = ("os.fork", "os.posix_spawn", "socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, arguments: seen.append(event) if event in watched else None)
from pathlib import Path
import numpy as np
from sketchbridge_export.artefacts.int8 import quantise_openvino
from sketchbridge_export.artefacts.openvino import write_openvino
onnx_path, folder = map(Path, sys.argv[1:])
write_openvino(onnx_path, folder)
paper = np.full((1, 256, 256, 3), 255, np.uint8)
quantise_openvino(
    onnx_path, folder, calibration=paper, pictures=paper, expected=paper, min_ssim=0, progress=lambda line: None
)
import sketchbridge_server.quiet_openvino
assert not seen, seen
"""


def test_nothing_is_reported_to_anyone(onnx_path: Path, tmp_path: Path) -> None:
    home, folder = tmp_path / "home", tmp_path / "folder"
    home.mkdir()
    folder.mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "NNCF_CI", "NNCF_DEV")}
    answer = subprocess.run(
        [sys.executable, "-c", NO_CALLS, str(onnx_path), str(folder)],
        env={**environment, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == ""
    assert not (home / "intel").exists()  # where its packages keep who you are


def test_calibration_on_the_shipped_drawings_is_enough_for_them(
    onnx_path: Path, pictures: Pictures, expected: Pictures, tmp_path: Path
) -> None:
    shown = calibration_pictures(None)[::6]
    found = quantise_openvino(
        onnx_path, tmp_path, calibration=shown, pictures=pictures, expected=expected, min_ssim=0, progress=ignore
    )
    assert found.calibration_pictures == len(shown)
    assert found.ssim > 0.9
