"""Files made to hurt: that show one reader what another does not see, or ask for more than they hold."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from sketchbridge_export.errors import CheckpointInvalid
from sketchbridge_export.sources import Checkpoint, open_source
from tests.export.conftest import randomise
from tests.export.mutations import CANARY, Files, Stranger, onnx_network, saved, unet, unzipped, zipped
from tests.export.test_ready_networks import save_scripted, with_line

SLOW_S = 10.0  # nothing may take longer


class Restored(nn.Module):
    """Its `__setstate__` is run by whoever loads it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return (self.conv.weight, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Files:
    path = tmp_path_factory.mktemp("scripted") / "network.pt"
    save_scripted(randomise(Stranger()).eval(), path)
    return unzipped(path.read_bytes())


@pytest.fixture(scope="module")
def restored() -> tuple[Files, str]:
    """An archive that makes the canary when it is loaded, and the name of its program."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Restored().eval()), buffer)
    files = unzipped(buffer.getvalue())
    name = next(name for name in files if name.endswith(".py") and b"__setstate__" in files[name])
    call = f'    torch.save([1], "{CANARY}")\n    self.training = (state)'.encode()
    changed = files[name].replace(b"    self.training = (state)", call)
    assert changed != files[name]
    return {**files, name: changed}, name


def under_another_root(files: Files, name: str) -> bytes:
    """PyTorch takes the folder of the first entry for the archive's; these are all that lie outside of it."""
    nothing = pickle.dumps((), protocol=2)
    return zipped({**files, "data.pkl": nothing, "constants.pkl": nothing})


def in_capitals(files: Files, name: str) -> bytes:
    """PyTorch looks names up without regard to case."""
    return zipped({(key.replace("code/", "CODE/") if key == name else key): files[key] for key in files})


def with_a_capital_ending(files: Files, name: str) -> bytes:
    return zipped({(f"{key[:-3]}.PY" if key == name else key): files[key] for key in files})


def in_another_encoding(files: Files, name: str) -> bytes:
    """Python reads two bytes as one letter where the first line says so; to TorchScript that line is a comment."""
    lines = ["# coding: utf-16-le", *files[name].decode().splitlines()]
    return zipped({**files, name: "".join(f"{line}{' ' * (len(line) % 2 == 0)}\n" for line in lines).encode()})


def behind_another_directory(files: Files, name: str) -> bytes:
    """Two directories: the end of the file gives the place of one; Python takes the one that lies right before it."""
    good = {**files, name: files[name].partition(b"  def __getstate__")[0]}
    evil_entries, evil_directory, end = _parts(zipped(files))
    good_entries, good_directory, _ = _parts(zipped(good))
    moved, place = bytearray(good_directory), 0
    while place < len(moved):
        lengths = struct.unpack("<HHH", moved[place + 28 : place + 34])
        offset = struct.unpack("<I", moved[place + 42 : place + 46])[0]
        # Python adds the distance between the two directories to every offset.
        moved[place + 42 : place + 46] = struct.pack("<I", len(evil_entries) + offset - len(evil_directory))
        place += 46 + sum(lengths)
    entries = evil_entries + good_entries
    return entries + evil_directory + moved + end[:16] + struct.pack("<I", len(entries)) + end[20:]


def _parts(archive: bytes) -> tuple[bytes, bytes, bytes]:
    place = archive.rfind(b"PK\x05\x06")
    size, offset = struct.unpack("<II", archive[place + 12 : place + 20])
    return archive[:offset], archive[offset : offset + size], archive[place:]


@pytest.mark.parametrize(
    "hide",
    [under_another_root, in_capitals, with_a_capital_ending, in_another_encoding, behind_another_directory],
)
def test_a_program_that_only_pytorch_would_see_does_not_run(
    hide: Callable[[Files, str], bytes],
    restored: tuple[Files, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network.pt"
    path.write_bytes(hide(*restored))
    with pytest.raises(CheckpointInvalid):
        open_source(path)
    assert list(tmp_path.iterdir()) == [path]
    with warnings.catch_warnings(), contextlib.suppress(RuntimeError):  # the control: PyTorch's own reader runs it
        warnings.simplefilter("ignore")
        torch.jit.load(path)  # type: ignore[no-untyped-call]
    assert (tmp_path / CANARY).exists()


@pytest.mark.parametrize(
    "line",
    [
        f"_z = {'-' * 20_000}1",
        f"_z = {'(' * 20_000}1{')' * 20_000}",
        f"_z = {'[' * 20_000}1{']' * 20_000}",
        f"_z = 1{' + 1' * 20_000}",
        f"_z = {'1 if True else ' * 20_000}1",
    ],
    ids=["signs", "brackets", "lists", "sums", "conditions"],
)
def test_a_program_that_pytorchs_parser_dies_of_is_refused(line: str, scripted: Files, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(with_line(scripted, line))
    with pytest.raises(CheckpointInvalid, match="a statement of more than 1,000 words"):
        open_source(tmp_path / "a")


def test_what_a_network_does_not_need_is_not_looked_at(scripted: Files, tmp_path: Path) -> None:
    root = next(iter(scripted)).partition("/")[0]
    more = {f"{root}/code/{number}.py.debug_pkl": b"rubbish" for number in range(20_000)}
    (tmp_path / "a").write_bytes(zipped({**scripted, **more}))
    began = time.monotonic()
    open_source(tmp_path / "a")
    assert time.monotonic() - began < SLOW_S


def pickled(steps: bytes) -> bytes:
    """A file of the new format that holds {"w": <what the steps leave>}."""
    content = b"\x80\x02}X\x01\x00\x00\x00w" + steps + b"s."
    return zipped({"a/data.pkl": content, "a/version": b"3\n", "a/byteorder": b"little", "a/data/0": bytes(16)})


def old(steps: bytes) -> bytes:
    """The same in the format before PyTorch 1.6."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    beginning = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, machine))
    return beginning + b"\x80\x02}X\x01\x00\x00\x00w" + steps + b"s." + pickle.dumps([], protocol=2)


HUGE = b"\x8a\x05" + (3 << 30).to_bytes(5, "little")  # LONG1: 3 GiB
DOUBLED = b"(K\x01tq\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(45))  # 2 ** 45 values in a tuple
PUNYCODE = b"c_codecs\nencode\nX\x02\x00\x00\x00abX\x08\x00\x00\x00punycode\x86R"


@pytest.mark.parametrize("build", [pickled, old])
@pytest.mark.parametrize(
    ("steps", "message"),
    [
        pytest.param(b"}" + DOUBLED + b"K\x01s", "tuples of tuples", id="a key that is endless to hash"),
        pytest.param(DOUBLED + b"Q", "tuples of tuples", id="a name that is endless to show"),
        pytest.param(
            b"cbuiltins\nbytearray\n" + HUGE + b"\x85R", "data of its own with `builtins.bytearray`", id="bytes"
        ),
        pytest.param(b"ctorch\nFloatTensor\n" + HUGE + b"\x85R", "data of its own with `torch.Float", id="tensor"),
        pytest.param(b"ctorch\nTensor\n" + HUGE + b"\x85\x81", "data of its own with `torch.Tensor", id="new tensor"),
        pytest.param(PUNYCODE, "data of its own with `_codecs.encode", id="slow encoding"),
        pytest.param(b"(" + b")" * 1_000_001 + b"t", "in more than 1,000,000 steps", id="many steps"),
    ],
)
def test_a_pickle_that_asks_for_more_than_the_file_holds_is_refused_before_it_is_read(
    steps: bytes, message: str, build: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(build(steps))
    with pytest.raises(CheckpointInvalid, match=message):
        open_source(tmp_path / "a")


def storage(key: bytes, count: bytes) -> bytes:
    return (
        b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX" + struct.pack("<I", len(key)) + key
        + b"X\x03\x00\x00\x00cpu" + count + b"tQt"
    )  # fmt: skip


def test_a_size_of_thousands_of_digits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(pickled(storage(b"0", b"\x8b" + struct.pack("<i", 4000) + b"\x01" * 4000)))
    with pytest.raises(CheckpointInvalid, match="a tensor of too many bytes has 16 in the file"):
        open_source(tmp_path / "a")


def test_only_the_archives_storages_count_as_storages(tmp_path: Path) -> None:
    files = unzipped(pickled(storage(b"k", b"M\xe8\x03")))  # 1,000 floats
    for more in ({"a/k": bytes(4000)}, {"a/data/k": bytes(4), "a/k": bytes(4000)}):
        (tmp_path / "a").write_bytes(zipped({**files, **more}))
        with pytest.raises(CheckpointInvalid, match=r"a tensor of 4,000 bytes has [04] in the file"):
            open_source(tmp_path / "a")
    (tmp_path / "a").write_bytes(zipped({**files, "a/data/K": bytes(4), "a/data/k": bytes(4000)}))
    with pytest.raises(CheckpointInvalid, match="two entries of one name"):
        open_source(tmp_path / "a")


def test_many_tensors_of_the_same_few_bytes_are_refused(tmp_path: Path) -> None:
    values = torch.zeros(1000, 1000, dtype=torch.float16)
    (tmp_path / "a").write_bytes(saved({f"w{number}": values for number in range(600)}))
    with pytest.raises(CheckpointInvalid, match="more than 536,870,912 values"):
        open_source(tmp_path / "a")


def test_an_archive_that_unpacks_to_far_more_than_it_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(zipped({"a/data.pkl": b"", "a/data/0": bytes(1 << 24)}, packed=True))
    with pytest.raises(CheckpointInvalid, match="unpacks to 16,777,216 bytes"):
        open_source(tmp_path / "a")


def test_a_terminal_is_not_told_anything_by_a_files_names(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(saved({"generator": unet(), "\x1b]0;title\x07\n": 1}))
    found = open_source(tmp_path / "a")
    assert isinstance(found, Checkpoint)
    assert found.notes[0] == "took `generator` and left `?]0;title??` aside"


def extended(change: Callable[[onnx.ModelProto], None]) -> bytes:
    """A good network whose result `painted` goes on through what `change` puts behind it, to `out`."""
    model = onnx_network()
    model.graph.node[-1].output[0] = "painted"
    change(model)
    return bytes(model.SerializeToString())


def _double(model: onnx.ModelProto, *, innermost: str) -> None:
    """Thirty functions, each of which calls the one before twice."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    domain = "own" if innermost == "f29" else ""
    first = helper.make_node(innermost, ["a"], ["b"], domain=domain)
    model.functions.append(helper.make_function("own", "f0", ["a"], ["b"], [first], opsets))
    for number in range(1, 30):
        calls = [helper.make_node(f"f{number - 1}", [a], [b], domain="own") for a, b in (("a", "t"), ("t", "b"))]
        model.functions.append(helper.make_function("own", f"f{number}", ["a"], ["b"], calls, opsets))
    model.opset_import.append(opsets[1])
    model.graph.node.append(helper.make_node("f29", ["painted"], ["out"], domain="own"))


def _make_sparse(model: onnx.ModelProto) -> None:
    values, place = np.ones(1, np.float32), np.zeros(1, np.int64)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(values, "shift"), numpy_helper.from_array(place, "place"), [1 << 30]
    )
    model.graph.sparse_initializer.append(sparse)
    model.graph.node.append(helper.make_node("Identity", ["painted"], ["out"]))


def _blow_up(model: onnx.ModelProto, kind: str) -> None:
    """Some 8 GB of ones, whose mean is added to the picture."""
    add = model.graph.initializer.append
    if kind == "ConstantOfShape":
        add(numpy_helper.from_array(np.array([1, 1, 1 << 16, 1 << 15], np.int64), "sizes"))
        one = numpy_helper.from_array(np.ones(1, np.float32))
        model.graph.node.append(helper.make_node(kind, ["sizes"], ["large"], value=one))
    elif kind == "Tile":
        add(numpy_helper.from_array(np.array([1, 1, 1 << 9, 1 << 9], np.int64), "times"))
        model.graph.node.append(helper.make_node(kind, ["painted", "times"], ["large"]))
    else:
        add(numpy_helper.from_array(np.array([1, 1, 1 << 9, 1 << 9], np.float32), "scales"))
        model.graph.node.append(helper.make_node(kind, ["painted", "", "scales"], ["large"]))
    model.graph.node.append(helper.make_node("GlobalAveragePool", ["large"], ["average"]))
    model.graph.node.append(helper.make_node("Add", ["painted", "average"], ["out"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: _blow_up(model, "ConstantOfShape"), r"makes 2\.1e\+09 values in one step"),
        (lambda model: _blow_up(model, "Tile"), r"makes 3\.2e\+09 values in one step"),
        (lambda model: _blow_up(model, "Resize"), r"makes 3\.2e\+09 values in one step"),
        (lambda model: _double(model, innermost="Relu"), "50,000 nodes and more once its functions are put in"),
        (lambda model: _double(model, innermost="f29"), "a function that calls itself"),
        (_make_sparse, "sparse weights"),
    ],
    ids=[
        "a huge constant",
        "a huge tile",
        "a huge picture",
        "functions of functions",
        "a function that never ends",
        "sparse weights",
    ],
)
def test_a_graph_that_grows_when_it_is_read_is_refused(
    change: Callable[[onnx.ModelProto], None], message: str, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(extended(change))
    with pytest.raises(CheckpointInvalid, match=message):
        open_source(tmp_path / "a")


def test_looking_at_a_graph_takes_no_longer_than_it_is_long(tmp_path: Path) -> None:
    def drop(model: onnx.ModelProto) -> None:
        value = "painted"
        off = numpy_helper.from_array(np.array(False), "")
        model.graph.node.append(helper.make_node("Constant", [], ["off"], value=off))
        model.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "ratio"))
        for number in range(20_000):
            model.graph.node.append(helper.make_node("Dropout", [value, "ratio", "off"], [f"d{number}"]))
            value = f"d{number}"
        model.graph.node.append(helper.make_node("Identity", [value], ["out"]))

    (tmp_path / "a").write_bytes(extended(drop))
    began = time.monotonic()
    open_source(tmp_path / "a")
    assert time.monotonic() - began < SLOW_S
