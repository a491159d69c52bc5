"""A small model repository that keeps to the tensors of the real one, and the real Triton that serves it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sketchbridge_server import ServerConfig, TritonServer, config
from sketchbridge_server.config import Endpoints

BYTES, PIXELS = "TYPE_STRING", "TYPE_UINT8"
DIMS = {BYTES: "[1]", PIXELS: "[256, 256, 3]", "TYPE_FP32": "[4]"}
PAINTER = ({"sketch": BYTES}, {"photo": BYTES, "timings": BYTES})

# name: (inputs, outputs, what else is in the config)
MODELS: dict[str, tuple[dict[str, str], dict[str, str], str]] = {
    "shoes": (*PAINTER, ""),
    "birds": ({"sketch": BYTES}, {"photo": BYTES}, ""),  # as an older exporter made them
    # A queue of one, so that the third of three requests finds it full.
    "busy": (
        *PAINTER,
        'dynamic_batching { default_queue_policy { max_queue_size: 1 } }\nparameters { key: "sleep_s" '
        'value { string_value: "0.5" } }',
    ),
    "fragile": (*PAINTER, 'parameters { key: "die" value { string_value: "yes" } }'),
    "sketch": ({"photo": BYTES}, {"sketch": BYTES, "sketch_image": PIXELS, "timings": BYTES}, ""),
    "shoes_roundtrip": ({"photo": BYTES}, {"sketch": BYTES, "repainted": BYTES, "timings": BYTES}, ""),
    "shoes_generator": ({"sketch": PIXELS}, {"photo": PIXELS}, ""),
    "decode": ({"image_bytes": BYTES}, {"image": PIXELS, "sketch": PIXELS}, ""),
    "encode": ({"image": PIXELS}, {"image_bytes": BYTES}, ""),
    "weather": ({"pressure": "TYPE_FP32"}, {"rain": "TYPE_FP32"}, ""),
}


@contextmanager
def stand_in_server(
    folder: Path, names: tuple[str, ...] = tuple(MODELS), arguments: tuple[str, ...] = ()
) -> Iterator[Endpoints]:
    """Serve the models of these names from a repository made in `folder`; yields where it answers."""
    for name in names:
        inputs, outputs, more = MODELS[name]
        write_model(
            folder / name,
            'backend: "python"\n'
            f"max_batch_size: {1 if name == 'busy' else 8}\n"
            f"input [{_tensors(inputs)}]\noutput [{_tensors(outputs)}]\n"
            f"instance_group [{{ kind: KIND_CPU count: 1 }}]\n{more}\n",
        )
    with serving(folder, arguments) as endpoints:
        yield endpoints


def write_model(folder: Path, config: str) -> None:
    """Make `folder` a stand-in model of this configuration."""
    (folder / "1").mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("stand_in_model.py"), folder / "1" / "model.py")
    (folder / "config.pbtxt").write_text(config)


@contextmanager
def serving(repository: Path, arguments: tuple[str, ...] = ()) -> Iterator[Endpoints]:
    """A real Triton, with more arguments than ServerConfig has words for."""
    server = TritonServer(ServerConfig(repositories=(repository,), http_port=0, grpc_port=0, metrics_port=0))
    original = config.command_line
    try:
        with pytest.MonkeyPatch.context() as patch:  # over before another server is started
            patch.setattr(
                "sketchbridge_server.triton.command_line",
                lambda *args, **options: [*original(*args, **options), *arguments],
            )
            server.start()
            server.wait_until_ready()
        yield server.endpoints
    finally:
        server.stop(grace_period_s=0)


def _tensors(tensors: dict[str, str]) -> str:
    return ", ".join(f'{{ name: "{name}" data_type: {kind} dims: {DIMS[kind]} }}' for name, kind in tensors.items())
