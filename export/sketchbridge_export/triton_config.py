"""The text of the config.pbtxt files that an export writes.

Names of models and tensors are the contract between the server, the client and the exporter.
Source: Triton's model configuration, model_config.proto of release 2.51.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sketchbridge_export.errors import OptionInvalid, RepositoryError
from sketchbridge_export.interface import INPUT_NAME, OUTPUT_NAME
from sketchbridge_preprocess import INTERFACE_SIDE_PX

MAX_BATCH_SIZE = 8
BUILDING_BLOCKS = ("decode", "encode", "sketch")
TIMINGS_NAME = "timings"
"""The output in which `encode` and `sketch` tell how long each step of a request took."""

CONFIG_NAME = "config.pbtxt"
GENERATOR_SUFFIX = "_generator"
_ROUNDTRIP_SUFFIX = "_roundtrip"

_THREADS = "# 0: as many threads as there are cores. Lower it where several generators are busy at once."
_LATENCY = "# One picture as fast as possible, on all cores. THROUGHPUT paints several at once, each more slowly."


_BF16_HINT = "HINT_BF16"
_PRECISION_HINT = "INFERENCE_PRECISION_HINT"  # only the embedded server's backend reads it


@dataclass(frozen=True)
class Served:
    """How a kind of artefact is served on the CPU.

    backend: Triton's name of it. file: in the version's folder. parameters: key -> value and the comment above it.
    """

    backend: str
    file: str
    parameters: Mapping[str, tuple[str, str]]

    @property
    def computes_in(self) -> str:
        """What OpenVINO is told to compute in; "f32" for other backends too."""
        return "bf16" if _BF16_HINT in self.parameters else "f32"

    def how(self) -> str:
        """What a config.pbtxt says to serve it."""
        lines = f'`backend: "{self.backend}"` and `default_model_filename: "{self.file}"`'
        if self.backend != "openvino":
            return lines
        return f'{lines}, {"with" if self.computes_in == "bf16" else "without"} the parameter {_BF16_HINT} "YES",'


@dataclass(frozen=True)
class Serving:
    """What a configuration serves. kind: a key of SERVED, None if it is served in a way that export does not write."""

    file: str
    kind: str | None


# By kind of artefact; TensorRT plans are served by configs/gpu.pbtxt.
SERVED: Mapping[str, Served] = {
    "onnx": Served("onnxruntime", "model.onnx", {"intra_op_thread_count": ("0", _THREADS)}),
    "openvino": Served("openvino", "model.xml", {"PERFORMANCE_HINT": ("LATENCY", _LATENCY)}),
    "openvino-bf16": Served(
        "openvino",
        "model.xml",
        {
            "PERFORMANCE_HINT": ("LATENCY", _LATENCY),
            _BF16_HINT: ("YES", "# Computes in bfloat16, as was certified."),
        },
    ),
    "openvino-int8": Served(
        "openvino",
        "model_int8.xml",
        {"PERFORMANCE_HINT": ("LATENCY", _LATENCY)},
    ),
}
DEFAULT_KIND = "onnx"
_USUAL_FILES = {"onnxruntime": "model.onnx", "openvino": "model.xml"}  # where a configuration names none

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

_SHAPE = f"[ {INTERFACE_SIDE_PX}, {INTERFACE_SIDE_PX}, 3 ]"
# What every generator shows, on any backend.
FACE = f"""\
input [
  {{
    name: "{INPUT_NAME}"  # black lines on white paper
    data_type: TYPE_UINT8
    dims: {_SHAPE}
  }}
]
output [
  {{
    name: "{OUTPUT_NAME}"
    data_type: TYPE_UINT8
    dims: {_SHAPE}
  }}
]
"""


def check_name(name: str) -> None:
    """Raise OptionInvalid unless `name` can be the name of a user-facing model."""
    if not _NAME.fullmatch(name):
        raise OptionInvalid(
            f"The name is {name!r}; it must be 1 to 63 lower-case letters, digits and underscores and begin with a "
            "letter, such as `shoes`."
        )
    if name in BUILDING_BLOCKS:
        raise OptionInvalid(f"{name!r} is the name of a building block. Choose another, such as `{name}s`.")
    if name.endswith((GENERATOR_SUFFIX, _ROUNDTRIP_SUFFIX)):
        raise OptionInvalid(
            f"{name!r} ends with {GENERATOR_SUFFIX!r} or {_ROUNDTRIP_SUFFIX!r}, which the export itself appends. "
            f"Leave it out: `{name.rsplit('_', 1)[0]}`."
        )


def generator_name(name: str) -> str:
    """The model that holds the artefact."""
    return name + GENERATOR_SUFFIX


def roundtrip_name(name: str) -> str:
    """The ensemble from a photo to its sketch and back."""
    return name + _ROUNDTRIP_SUFFIX


def read_serving(path: Path) -> Serving:
    """What a generator's config.pbtxt serves. Raises RepositoryError if it can't be read, or names no file."""
    config = read_config(path)
    file = config.default_model_filename or _USUAL_FILES.get(config.backend)
    if file is None:
        raise RepositoryError(f"`{path}` names no file: write `default_model_filename` into it.")
    said = {key: value.string_value for key, value in config.parameters.items()}
    hint = "bf16" if said.get(_BF16_HINT, "").upper() == "YES" else "f32"
    way = (config.backend, file, said.get(_PRECISION_HINT, hint))
    kinds = (kind for kind, one in SERVED.items() if (one.backend, one.file, one.computes_in) == way)
    return Serving(file, next(kinds, None))


def read_config(path: Path) -> model_config_pb2.ModelConfig:
    """Parse a model configuration; fields of later releases are skipped. Raises RepositoryError if it is none."""
    try:
        if path.exists() and not path.is_file():
            raise RepositoryError(f"`{path}` is not a file.")
        text = path.read_text(encoding="utf-8")
        return text_format.Parse(text, model_config_pb2.ModelConfig(), allow_unknown_field=True)
    except OSError as exc:
        raise RepositoryError(f"`{path}` can't be read: {exc.strerror}.") from exc
    except (text_format.ParseError, UnicodeDecodeError) as exc:
        raise RepositoryError(f"`{path}` is no model configuration: {exc}") from exc


def tells_timings(path: Path) -> bool:
    """Whether the model of this config.pbtxt has the output `timings`. Raises RepositoryError if it can't be read."""
    return any(output.name == TIMINGS_NAME for output in read_config(path).output)


def generator_config(name: str, kind: str = DEFAULT_KIND) -> str:
    """config.pbtxt of `<name>_generator`, on the CPU. kind: the artefact that is served, a key of SERVED."""
    served = SERVED[kind]
    return f"""\
# The `{name}` generator: a line drawing in, a photograph out, both uint8 RGB.
# Written once by `sketchbridge export`; later exports add versions and leave this file as you have changed it.
name: "{generator_name(name)}"
backend: "{served.backend}"
default_model_filename: "{served.file}"

# Pictures painted together at most. The graph takes any batch; 8 at once took a U-Net-256 of ngf 32 about 100 MB.
# Raise it on a GPU, together with the other steps of the ensembles.
max_batch_size: {MAX_BATCH_SIZE}

{FACE}
# Requests that wait while the network is busy are painted together. No request waits for company when it is idle:
# raise the delay (microseconds) only on a GPU, where a batch costs little more than one picture.
dynamic_batching {{
  max_queue_delay_microseconds: 0
}}

# One instance uses all cores. More of them only share the same cores and take the weights' memory again.
instance_group [
  {{
    count: 1
    kind: KIND_CPU
  }}
]

{"".join(_parameter(key, *value) for key, value in served.parameters.items())}
# The first run allocates its buffers and takes longer; do it before the model counts as ready.
model_warmup [
{warmup("blank paper", 1)}
]
"""


def warmup(title: str, batch_size: int) -> str:
    """An entry of model_warmup: that many blank pictures at once."""
    return f"""\
  {{
    name: "{title}"
    batch_size: {batch_size}
    inputs {{
      key: "{INPUT_NAME}"
      value: {{
        data_type: TYPE_UINT8
        dims: {_SHAPE}
        zero_data: true
      }}
    }}
  }}"""


def _parameter(key: str, value: str, comment: str) -> str:
    return f"""\
{comment}
parameters {{
  key: "{key}"
  value: {{ string_value: "{value}" }}
}}
"""


def paint_config(name: str, *, timings: bool = True) -> str:
    """config.pbtxt of the ensemble `<name>`: sketch bytes -> photo bytes.

    timings: whether the ensemble has that output too, which its `encode` must have.
    """
    steps = [
        _step("decode", {"image_bytes": "sketch"}, {"sketch": "drawing"}),
        _step(generator_name(name), {INPUT_NAME: "drawing"}, {OUTPUT_NAME: "painted"}),
        _step("encode", {"image": "painted"}, {"image_bytes": "photo", **_told(timings=timings)}),
    ]
    title = f"`{name}`: the bytes of a sketch in, the bytes of a photograph out."
    return _ensemble(title, name, "sketch", ["photo"], steps, timings=timings)


def roundtrip_config(name: str, *, timings: bool = True) -> str:
    """config.pbtxt of the ensemble `<name>_roundtrip`: photo bytes -> sketch bytes and repainted photo bytes.

    timings: see `paint_config`.
    """
    steps = [
        _step("sketch", {"photo": "photo"}, {"sketch": "sketch", "sketch_image": "drawing"}),
        _step(generator_name(name), {INPUT_NAME: "drawing"}, {OUTPUT_NAME: "painted"}),
        _step("encode", {"image": "painted"}, {"image_bytes": "repainted", **_told(timings=timings)}),
    ]
    title = f"`{roundtrip_name(name)}`: the bytes of a photograph in, its sketch and the repainted photograph out."
    return _ensemble(title, roundtrip_name(name), "photo", ["sketch", "repainted"], steps, timings=timings)


def _told(*, timings: bool) -> dict[str, str]:
    """What `encode` gives beside the picture, as an output map."""
    return {TIMINGS_NAME: TIMINGS_NAME} if timings else {}


def _ensemble(title: str, name: str, source: str, results: list[str], steps: list[str], *, timings: bool) -> str:
    # Triton 2.51 answers with an ensemble's outputs in reverse order. Who names none and takes the first one goes on
    # getting the picture if `timings` come first here.
    outputs = ",\n".join(_bytes_tensor(result) for result in [*_told(timings=timings), *results])
    steps_text = ",\n".join(steps)
    return f"""\
# {title}
# Written once by `sketchbridge export`. An ensemble runs nothing itself: tune the models it names.
name: "{name}"
platform: "ensemble"
max_batch_size: {MAX_BATCH_SIZE}  # no larger than any step's

input [
{_bytes_tensor(source)}
]
output [
{outputs}
]

ensemble_scheduling {{
  step [
{steps_text}
  ]
}}
"""


def _bytes_tensor(name: str) -> str:
    return f"""\
  {{
    name: "{name}"
    data_type: TYPE_STRING
    dims: [ 1 ]
  }}"""


def _step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> str:
    lines = ["    {", f'      model_name: "{model}"', "      model_version: -1  # the latest"]
    for field, tensors in (("input_map", inputs), ("output_map", outputs)):
        lines += [f'      {field} {{ key: "{key}" value: "{value}" }}' for key, value in tensors.items()]
    return "\n".join([*lines, "    }"])
