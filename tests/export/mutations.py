"""Checkpoints of every format, and ways to spoil them; the same seed always spoils the same way."""

from __future__ import annotations

import io
import json
import os
import random
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save
from torch import nn

from tests.export.conftest import Pix2PixUNet, randomise

CANARY = "canary"  # a hostile pickle that runs makes a file of this name in the current folder

Files = dict[str, bytes]
Spoil = Callable[[random.Random, bytes], bytes | None]


@dataclass(frozen=True)
class Mutation:
    """A spoiled file. content: None for a folder. label: what it was and what was done to it."""

    label: str
    content: bytes | None

    def write(self, folder: Path) -> Path:
        path = folder / "checkpoint"
        if self.content is None:
            path.mkdir()
        else:
            path.write_bytes(self.content)
        return path


class Stranger(nn.Module):
    """A generator of no known family."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 4, 2, 1)
        self.norm = nn.InstanceNorm2d(4, affine=True)
        self.up = nn.ConvTranspose2d(4, 4, 4, 2, 1)
        self.batch = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.batch(self.up(torch.relu(self.norm(self.down(x)))))
        return torch.tanh(self.last(nn.functional.pad(y, [1, 1, 1, 1], mode="reflect")))


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.function, self.arguments)


def unet() -> dict[str, Any]:
    return dict(randomise(Pix2PixUNet(downs=5, ngf=2)).state_dict())


def saved(content: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def make_originals() -> Files:
    """A small good file of each format."""
    state = unet()
    network = randomise(Pix2PixUNet(downs=5, ngf=2)).eval()
    stranger = randomise(Stranger()).eval()
    picture = torch.zeros(1, 3, 64, 64)
    training = {"generator": state, "generator_ema": state, "optimizer": {"state": {}, "param_groups": []}, "epoch": 3}
    files = {
        "torch": saved(state),
        "torch old": saved(state, zipped=False),
        "training": saved(training),
        "safetensors": save({key: value.contiguous() for key, value in state.items()}, {"sketchbridge": "{}"}),
        "HDF5": _hdf5(),
    }
    files["Keras"] = zipped({"config.json": json.dumps({"config": {"layers": []}}).encode(), "metadata.json": b"{}",
                             "model.weights.h5": files["HDF5"]})  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, module in (("known", network), ("stranger", stranger)):
            buffer = io.BytesIO()
            torch.jit.save(torch.jit.trace(module, picture[:, :, :32, :32]), buffer)  # type: ignore[no-untyped-call]
            files[f"TorchScript {name}"] = buffer.getvalue()
            buffer = io.BytesIO()
            torch.export.save(torch.export.export(module, (picture[:, :, :32, :32],)), buffer)
            files[f"torch.export {name}"] = buffer.getvalue()
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(stranger), buffer)
        files["TorchScript scripted"] = buffer.getvalue()
    files["ONNX"] = onnx_network().SerializeToString()
    return files


def onnx_network(*, batch: int | str = "batch", side: int | str = 64, channels: int = 3) -> onnx.ModelProto:
    """Two convolutions and a batch normalisation, built without torch."""
    numbers = np.random.default_rng(0)
    weights = {
        "a": numbers.normal(0, 0.3, (4, channels, 3, 3)),
        "b": numbers.normal(0, 0.3, (3, 4, 3, 3)),
        **{name: numbers.uniform(0.5, 1.5, 4) for name in ("scale", "shift", "mean", "variance")},
    }
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["y"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["y", "scale", "shift", "mean", "variance"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["c"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, channels, side, side])],
        [helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [batch, 3, side, side])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _hdf5() -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"conv2d"]
        layer = group.create_group("conv2d")
        layer.attrs["weight_names"] = [b"conv2d/kernel:0"]
        layer.create_dataset("conv2d/kernel:0", data=np.ones((4, 4, 3, 2), np.float32))
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": {"layers": []}})
    return buffer.getvalue()


def unzipped(content: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files: Mapping[str, bytes], *, packed: bool = False) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            # A bare name would be dated by the clock, and no two seconds would give the same file.
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
            archive.writestr(entry, content)
    return buffer.getvalue()


def mutate(seed: int, originals: Files) -> Mutation:
    """The mutation of this number."""
    chance = random.Random(seed)  # noqa: S311 - it spoils files, it guards nothing
    name = chance.choice(sorted(originals))
    known: list[Spoil] = [*_ANY]
    if originals[name].startswith(b"PK"):
        known += [_change_entry, _remove_entry, _rename_entry, _blow_up, _change_entry]
    if name.startswith("torch") and "export" not in name:
        known = [*known, *_CONTENTS, *_HOSTILE] if chance.random() < 0.5 else [*_CONTENTS, *_HOSTILE]
    known += _SPECIAL.get(name.partition(" ")[0] if name != "torch old" else "", [])
    how = chance.choice(known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Mutation(f"{name}: {how.__name__.strip('_').replace('_', ' ')}", how(chance, originals[name]))


def _truncate(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content))]


def _flip_bytes(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 3, 20, 200))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _flip_bytes_at_the_ends(chance: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 3, 10))):
        near = chance.randrange(min(300, len(changed)))
        changed[near if chance.random() < 0.5 else -1 - near] = chance.randrange(256)
    return bytes(changed)


def _zero_a_block(chance: random.Random, content: bytes) -> bytes:
    begin, length = chance.randrange(len(content)), chance.choice((8, 100, 4096))
    return content[:begin] + bytes(length) + content[begin + length :]


def _insert_rubbish(chance: random.Random, content: bytes) -> bytes:
    begin = chance.randrange(len(content))
    return content[:begin] + chance.randbytes(chance.choice((1, 7, 500))) + content[begin:]


def _repeat_a_part(chance: random.Random, content: bytes) -> bytes:
    begin, end = sorted((chance.randrange(len(content)), chance.randrange(len(content))))
    return content[:end] + content[begin:]


def _empty(chance: random.Random, content: bytes) -> bytes:
    return b""


def _make_a_folder(chance: random.Random, content: bytes) -> None:
    return None


def _rubbish_of_the_same_beginning(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.choice((4, 16, 100))] + chance.randbytes(1000)


_ANY: list[Spoil] = [
    _truncate, _truncate, _flip_bytes, _flip_bytes, _flip_bytes_at_the_ends, _zero_a_block, _insert_rubbish,
    _repeat_a_part, _empty, _make_a_folder, _rubbish_of_the_same_beginning,
]  # fmt: skip


def _change_entry(chance: random.Random, content: bytes) -> bytes:
    """Damage inside an archive whose checksums are right all the same."""
    files = unzipped(content)
    # Descriptions more often than weights.
    chosen = [name for name in files if not name.rpartition("/")[2].strip("weight_").isdigit() and files[name]]
    name = chance.choice(chosen if chance.random() < 0.8 else [name for name in files if files[name]])
    how = chance.choice(
        (_truncate, _flip_bytes, _flip_bytes_at_the_ends, _insert_rubbish, _repeat_a_part, _change_text)
    )
    return zipped({**files, name: how(chance, files[name])})


def _change_text(chance: random.Random, content: bytes) -> bytes:
    """Replace a number by another one: sizes, offsets, kinds."""
    digits = [index for index, byte in enumerate(content) if chr(byte).isdigit()]
    if not digits:
        return content[::-1]
    index = chance.choice(digits)
    return content[:index] + chance.choice((b"0", b"-1", b"99999999999999999999", b"7", b'"x"')) + content[index + 1 :]


def _remove_entry(chance: random.Random, content: bytes) -> bytes:
    files = unzipped(content)
    files.pop(chance.choice(list(files)))
    return zipped(files)


def _rename_entry(chance: random.Random, content: bytes) -> bytes:
    files = unzipped(content)
    name = chance.choice(list(files))
    files[chance.choice((name + "x", "../" + name, "/" + name, name.upper(), "a/" + name))] = files.pop(name)
    return zipped(files)


def _blow_up(chance: random.Random, content: bytes) -> bytes:
    files = unzipped(content)
    files[chance.choice(list(files))] = bytes(1 << chance.randrange(20, 25))
    return zipped(files, packed=True)


def _wrong_shape(chance: random.Random, content: bytes) -> bytes:
    state = unet()
    name = chance.choice(list(state))
    shape = [chance.choice((0, 1, 2, 3, 5, 64)) for _ in range(chance.choice((0, 1, 2, 4, 4, 5)))]
    return saved({**state, name: torch.zeros(shape)})


def _missing_and_extra_keys(chance: random.Random, content: bytes) -> bytes:
    state = unet()
    for _ in range(chance.choice((1, 1, 5))):
        state.pop(chance.choice(list(state)))
    if chance.random() < 0.5:
        key = chance.choice(("extra.weight", "", ".", "model.model.1.model.9.weight", "a\nb", "\0", "é" * 300))
        state[key] = torch.zeros(2)
    return saved(state)


def _odd_values(chance: random.Random, content: bytes) -> bytes:
    state = unet()
    name = chance.choice([name for name, value in state.items() if value.is_floating_point()])
    odd: list[Callable[[], Any]] = [
        lambda: torch.full_like(state[name], float("nan")),
        lambda: torch.full_like(state[name], float("inf")),
        lambda: torch.full_like(state[name], 3e38),
        lambda: state[name].double() * 1e300,
        lambda: state[name].to(torch.complex64),
        lambda: state[name].to(torch.int8),
        lambda: state[name] > 0,
        lambda: state[name].to(torch.bfloat16),
        state[name].to_sparse,
        lambda: torch.zeros(1).expand(1 << 20, 1 << 20),
        lambda: torch.quantize_per_tensor(state[name], 0.1, 0, torch.qint8),
        lambda: torch.empty(3, device="meta"),
        lambda: state[name].numpy().tolist(),
        lambda: None,
        lambda: "text",
    ]
    return saved({**state, name: chance.choice(odd)()})


def _odd_wrapping(chance: random.Random, content: bytes) -> bytes:
    content_: Any = unet()
    for _ in range(chance.choice((1, 2, 3, 6, 60))):
        key = chance.choice(("state_dict", "generator", "model", "ema", "netG", "module", "params", "other", 7, None))
        content_ = chance.choice(({key: content_}, {key: content_, "epoch": 3}, {key: content_, "ema": {}}, [content_]))
    return saved(content_)


def _odd_metadata(chance: random.Random, content: bytes) -> bytes:
    odd: Any = chance.choice(
        (3, "x" * 100_000, [], {"norm": "batch"}, {"family": 3}, {"size": -1}, {"norm": ["running"]},
         {1: torch.ones(1)}, {"a": float("nan")}, {"dropout_seed": 10**30}, {"activation": {}}, {"input_range": None})
    )  # fmt: skip
    return saved({"sketchbridge": odd, "generator": unet()})


_CONTENTS: list[Spoil] = [
    _wrong_shape, _missing_and_extra_keys, _odd_values, _odd_wrapping, _odd_metadata,
]  # fmt: skip


def hostile_objects() -> list[Any]:
    """Objects that make the canary file if anything unpickles them carelessly."""
    touch = f"open({CANARY!r}, 'w').close()"
    return [
        Runs(os.system, f"touch {CANARY}"),
        Runs(eval, touch),
        Runs(exec, touch),
        Runs(getattr, Runs(__import__, "os"), "system"),
        Runs(map, Runs(eval, f"lambda _: {touch}"), [1]),
        Runs(io.open, CANARY, "w"),
        Runs(torch.load, CANARY),
        nn.Conv2d(1, 1, 1),
    ]


def _hostile_pickle(chance: random.Random, content: bytes) -> bytes:
    hostile = chance.choice(hostile_objects())
    places: list[Any] = [
        hostile,
        {"state_dict": unet(), "extra": hostile},
        {**unet(), "extra": hostile},
        {"generator": {"a": [{"b": (hostile,)}]}},
        {"sketchbridge": hostile, "generator": unet()},
        {hostile: unet()} if isinstance(hostile, nn.Module) else [hostile],
    ]
    return saved(chance.choice(places), zipped=chance.random() < 0.5)


_HOSTILE: list[Spoil] = [_hostile_pickle, _hostile_pickle]


def _change_header(chance: random.Random, content: bytes) -> bytes:
    length = int.from_bytes(content[:8], "little")
    changed = chance.choice((_change_text, _flip_bytes, _truncate))(chance, content[8 : 8 + length])
    size = len(changed) if chance.random() < 0.7 else chance.choice((0, 1, len(changed) + 8, 1 << 30, (1 << 63) - 1))
    return size.to_bytes(8, "little") + changed + content[8 + length :]


def _swap_pickles(chance: random.Random, content: bytes) -> bytes:
    """A hostile pickle in an archive of another kind."""
    files = unzipped(content)
    hostile = saved(chance.choice(hostile_objects()))
    name = chance.choice([name for name in files if name.endswith((".pkl", ".pt", "weight_0")) or "data" in name])
    pickled = next(value for key, value in unzipped(hostile).items() if key.endswith("data.pkl"))
    return zipped({**files, name: chance.choice((hostile, pickled))})


def _call_anything(chance: random.Random, content: bytes) -> bytes:
    """A line of program more: what reads or writes files, never ends, or can't be known."""
    files = unzipped(content)
    name = chance.choice([name for name in files if name.endswith(".py")])
    lines = files[name].decode().splitlines()
    ends = [index for index, line in enumerate(lines) if line.startswith("    return")]
    line = chance.choice(
        (
            f'_z = torch.from_file("{CANARY}", True, 1)',
            f'torch.save(1, "{CANARY}")',
            "ops.image.read_file()",
            "while True:\n      _z = 1",
            "_z = ops.aten.normal_(x)",
            "for _i in range(1000000000000):\n      _z = 1",
            "_z = torch.zeros([1000000, 1000000, 1000])",
            "raise",
        )
    )
    for index in ends[-1:]:
        lines.insert(index, f"    {line}")
    if chance.random() < 0.3:
        lines += ["  def __setstate__(self, state: int) -> NoneType:", f"    {line}", "    return None"]
    return zipped({**files, name: ("\n".join(lines) + "\n").encode()})


def _change_program(chance: random.Random, content: bytes) -> bytes:
    """Another value somewhere in the description of the graph, or another operator."""
    files = unzipped(content)
    name = next(name for name in files if name.endswith("models/model.json"))
    text = files[name].decode()
    if chance.random() < 0.3:
        target = chance.choice(("torch.ops.aten.from_file.default", "torch.load", "os.system", "_operator.attrgetter",
                                "torch.ops.aten.randn.default", "torch.hub.load", "#x", "torch.ops.aten"))  # fmt: skip
        return zipped({**files, name: text.replace("torch.ops.aten.tanh.default", target).encode()})
    program = json.loads(text)
    place: Any = program["graph_module"]
    while isinstance(place, dict | list) and place:
        key = chance.choice(list(place)) if isinstance(place, dict) else chance.randrange(len(place))
        if not isinstance(place[key], dict | list) or not place[key] or chance.random() < 0.1:
            place[key] = chance.choice((None, -1, 0, 10**12, "x", [], {}, True, {"as_int": 10**10}, {"as_expr": "1/0"}))
            break
        place = place[key]
    return zipped({**files, name: json.dumps(program).encode()})


def _pickled_constant(chance: random.Random, content: bytes) -> bytes:
    files = unzipped(content)
    folder, prefix = chance.choice((("weights", "weight_"), ("constants", "tensor_"), ("constants", "opaque_obj_")))
    config = next(name for name in files if name.endswith(f"data/{folder}/model_{folder}_config.json"))
    described = json.loads(files[config])
    described["config"]["hostile"] = {"path_name": f"{prefix}999", "is_param": False, "use_pickle": True,
                                      "tensor_meta": None}  # fmt: skip
    where = config.rpartition("/")[0]
    return zipped({**files, config: json.dumps(described).encode(),
                   f"{where}/{prefix}999": saved(chance.choice(hostile_objects()))})  # fmt: skip


def _change_graph(chance: random.Random, content: bytes) -> bytes:
    model = onnx.load_model_from_string(content)
    node = chance.choice(model.graph.node)
    tensor = chance.choice(model.graph.initializer)
    what = chance.randrange(12)
    if what == 0:
        node.op_type = chance.choice(("Loop", "RandomNormal", "NonExistent", "If", "Erf", "Resize", "Reshape", ""))
    elif what == 1:
        node.domain = chance.choice(("com.microsoft", "ai.onnx.ml", "evil"))
    elif what == 2:
        node.input[0] = chance.choice(("out", "nothing", "", node.output[0]))
    elif what == 3:
        tensor.dims[:] = [chance.choice((-1, 0, 1, 2**40, 7)) for _ in range(chance.randrange(5))]
    elif what == 4:
        tensor.raw_data = np.full(
            len(tensor.raw_data) // 4, chance.choice((np.nan, np.inf, 3e38)), np.float32
        ).tobytes()
    elif what == 5:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        place = chance.choice(("../../../../etc/passwd", "/etc/passwd", "checkpoint", "", ".", "nothing"))
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=place))
    elif what == 6:
        model.opset_import[0].version = chance.choice((-1, 0, 1, 8, 99))
    elif what == 7:
        model.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))
    elif what == 8:
        shape = model.graph.input[0].type.tensor_type.shape.dim
        shape[chance.randrange(4)].dim_value = chance.choice((-3, 0, 1, 2, 10**9))
    elif what == 9:
        tensor.data_type = chance.choice((0, 2, 8, 11, 16, 99))
    elif what == 10:
        del model.graph.node[chance.randrange(len(model.graph.node))]
    else:
        model.metadata_props.append(
            onnx.StringStringEntryProto(key="sketchbridge", value=chance.choice(("{", "3", "[]")))
        )
    return bytes(model.SerializeToString())


_SPECIAL: dict[str, list[Spoil]] = {
    "safetensors": [*([_change_header] * 6)],
    "TorchScript": [*([_call_anything] * 4), *([_swap_pickles] * 2)],
    "torch.export": [*([_change_program] * 5), *([_pickled_constant] * 2), _swap_pickles],
    "ONNX": [*([_change_graph] * 8)],
}
