from __future__ import annotations

import sys
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from sketchbridge_export.artefacts.onnx import write_onnx
from sketchbridge_export.errors import CheckpointInvalid, OptionInvalid, ParityFailed, RepositoryError
from sketchbridge_export.families import TANH_CONVENTION, Generator
from sketchbridge_export.interface import GeneratorInterface
from sketchbridge_export.parity import TOLERANCES, measure, out_of_tolerance, paint_alone, paint_with_onnx
from sketchbridge_export.parity_pictures import shipped_pictures

PICTURES = shipped_pictures()


class Tiny(nn.Module):
    """One convolution, large enough for its weights to be halved."""

    def __init__(self, largest: float = 0.1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 11, padding=5)
        nn.init.uniform_(self.convolution.weight, -0.1, 0.1)
        with torch.no_grad():
            self.convolution.weight[0, 0, 0, 0] = largest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.convolution(x))


def tiny(largest: float = 0.1) -> GeneratorInterface:
    torch.manual_seed(3)
    return GeneratorInterface(Generator(Tiny(largest), 3, 3, 256, "none", {}), TANH_CONVENTION).eval()


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    write_onnx(tiny(), path)
    return path


def test_the_graph_has_the_contracts_names_types_and_shapes(tiny_onnx: Path) -> None:
    graph = onnx.load(tiny_onnx).graph
    for values, name in ((graph.input, "sketch"), (graph.output, "photo")):
        assert [value.name for value in values] == [name]
        tensor = values[0].type.tensor_type
        assert tensor.elem_type == onnx.TensorProto.UINT8
        assert [dim.dim_value for dim in tensor.shape.dim][1:] == [256, 256, 3]
        assert tensor.shape.dim[0].dim_param


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(tiny_onnx: Path) -> None:
    content = tiny_onnx.read_bytes()
    for trace in (b"Traceback", b'File "', b"sketchbridge_export", str(Path(sys.prefix)).encode()):
        assert trace not in content


def test_exporting_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_onnx(tiny(), tmp_path / "model.onnx")  # a warning would fail the test as well
    assert capfd.readouterr() == ("", "")


def test_fp16_weights_are_stored_as_float16_and_stay_within_their_tolerance(tmp_path: Path, tiny_onnx: Path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(tiny(), path, weights="fp16")
    stored = {tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4}
    assert stored == {onnx.TensorProto.FLOAT16}
    assert path.stat().st_size < 0.8 * tiny_onnx.stat().st_size
    found = measure(paint_alone(tiny(), PICTURES), paint_with_onnx(path), PICTURES)
    assert out_of_tolerance(found.batches, TOLERANCES["fp16-weights"]) == []


def test_a_weight_beyond_float16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"holds 1e\+05; float16 ends at 65504"):
        write_onnx(tiny(1e5), tmp_path / "model.onnx", weights="fp16")


def test_a_network_too_large_for_one_file_is_refused_before_the_work(tmp_path: Path) -> None:
    network = nn.Conv2d(3, 3, 8000, device="meta")  # 2.3 GB, none of it in memory
    interface = GeneratorInterface(Generator(network, 3, 3, 256, "none", {}), TANH_CONVENTION)
    with pytest.raises(CheckpointInvalid, match=r"has 2,304,000,012 bytes of weights; an ONNX file holds"):
        write_onnx(interface, tmp_path / "model.onnx")


def test_a_disk_that_is_full_is_an_error_of_ours() -> None:
    with pytest.raises(RepositoryError, match="`/dev/full` can't be written: No space left"):
        write_onnx(tiny(), Path("/dev/full"))


def test_an_artefact_of_another_checkpoint_fails_at_every_batch_size(tiny_onnx: Path) -> None:
    found = measure(paint_alone(tiny(0.9), PICTURES), paint_with_onnx(tiny_onnx), PICTURES)
    problems = out_of_tolerance(found.batches, TOLERANCES["fp32"])
    assert [problem.split(":")[0] for problem in problems] == ["batch 1", "batch 2", "batch 5"]


def test_an_artefact_of_another_signature_fails_before_it_is_run(tiny_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_onnx)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    for node in model.graph.node:
        node.output[:] = ["picture" if name == "photo" else name for name in node.output]
    model.graph.output[0].name = "picture"
    onnx.save_model(model, tmp_path / "other.onnx")
    with pytest.raises(
        ParityFailed, match=r"`sketch` takes batches of 1 only; outputs are .*'picture'.*expected `photo`"
    ):
        paint_with_onnx(tmp_path / "other.onnx")


def test_a_file_that_is_no_graph_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ParityFailed, match=r"can't load `.*model\.onnx`"):
        paint_with_onnx(tmp_path / "model.onnx")


class Interrupted(Tiny):
    """Somebody presses Ctrl-C while it is traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt


def test_ctrl_c_during_the_export_stays_ctrl_c(tmp_path: Path) -> None:
    interface = GeneratorInterface(Generator(Interrupted(0.1), 3, 3, 256, "none", {}), TANH_CONVENTION).eval()
    with pytest.raises(KeyboardInterrupt):
        write_onnx(interface, tmp_path / "model.onnx")
