"""The text of `<model>/configs/gpu.pbtxt`, which serves TensorRT plans (`tritonserver --model-config-name=gpu`).

Source: Triton's model configuration, model_config.proto of release 2.51, and the TensorRT backend of the same release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sketchbridge_export.errors import OptionInvalid, RepositoryError
from sketchbridge_export.triton_config import FACE, MAX_BATCH_SIZE, generator_name, read_config, warmup

FILE_NAME = "gpu.pbtxt"
FOLDER_NAME = "configs"

# What the batcher makes: alone, and powers of two, so that few graphs cover what really comes.
_GRAPH_BATCH_SIZES = (1, 2, 4, 8)
_QUEUE_DELAY_US = 500
_COMPUTE_CAPABILITY = re.compile(r"\d+\.\d")
_FILE = re.compile(r"[\w.-]+\.plan")
_NO_PLAN = "model.plan"  # a name that no plan has


@dataclass(frozen=True)
class Plans:
    """The plans of a version.

    by_capability: compute capability, such as "9.0", -> the plan's file in the version's folder. portable: a hardware
    compatible plan for all GPUs that `by_capability` does not name. max_batch_size: what every plan takes at least.
    Raises OptionInvalid if there is no plan, or for a key or file name of another form.
    """

    by_capability: Mapping[str, str]
    portable: str | None = None
    max_batch_size: int = MAX_BATCH_SIZE

    def __post_init__(self) -> None:
        if not self.by_capability and self.portable is None:
            raise OptionInvalid("configs/gpu.pbtxt needs at least one plan.")
        for capability, file in self.by_capability.items():
            if not _COMPUTE_CAPABILITY.fullmatch(capability):
                raise OptionInvalid(f"{capability!r} is no compute capability; it is written as in '9.0'.")
            _check_file(file)
        if self.portable is not None:
            _check_file(self.portable)

    def lines(self) -> str:
        """What names them in the configuration."""
        entries = sorted(self.by_capability.items(), key=lambda item: tuple(map(int, item[0].split("."))))
        by_capability = "".join(f'cc_model_filenames {{ key: "{key}" value: "{file}" }}\n' for key, file in entries)
        return f'default_model_filename: "{self.portable or _NO_PLAN}"\n{by_capability}'


def with_plans(text: str, plans: Plans, path: Path) -> str:
    """The text of a configs/gpu.pbtxt that somebody may have tuned, naming other plans; all else stays.

    path: for messages. Raises RepositoryError if it does not name its plans line by line, as `gpu_config` does.
    """
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith("cc_model_filenames ")]
    places = [number for number, line in enumerate(kept) if line.startswith("default_model_filename: ")]
    if len(places) != 1 or "cc_model_filenames" in "".join(kept):
        raise RepositoryError(f"`{path}` is not laid out as export writes it. Move it away, and export again.")
    kept[places[0]] = plans.lines()
    return "".join(kept)


def read_plans(path: Path) -> set[str]:
    """The plans that a configs/gpu.pbtxt names. Raises RepositoryError if it can't be read."""
    config = read_config(path)
    portable = {config.default_model_filename} - {"", _NO_PLAN}
    return portable | set(config.cc_model_filenames.values())


def check_layout(path: Path) -> None:
    """Raise RepositoryError if `with_plans` could not make a configs/gpu.pbtxt name other plans."""
    with_plans(path.read_text(encoding="utf-8", errors="replace"), Plans({}, portable="any.plan"), path)


def gpu_config(name: str, plans: Plans) -> str:
    """configs/gpu.pbtxt of `<name>_generator`, to be read by `tritonserver --model-config-name=gpu`."""
    max_batch_size = plans.max_batch_size
    sizes = [size for size in _GRAPH_BATCH_SIZES if size < max_batch_size] + [max_batch_size]
    preferred = ", ".join(str(size) for size in sizes if size > 1) or "1"
    graphs = "\n".join(f"    graph_spec {{ batch_size: {size} }}" for size in sizes)
    warmups = ",\n".join(warmup(f"blank paper, {size} at once", size) for size in sizes)
    return f"""\
# The `{name}` generator on an NVIDIA GPU: a line drawing in, a photograph out, both uint8 RGB.
# Written by `sketchbridge export`; serve it with `sketchbridge serve --model-config-name gpu`.
name: "{generator_name(name)}"
backend: "tensorrt"

# A plan fits one compute capability. A GPU that is not listed gets the default: a plan that runs on all of them, more
# slowly, or {_NO_PLAN}, which is not there, so that no GPU runs another's.
{plans.lines()}
# Pictures painted together at most, as the plans were built for.
max_batch_size: {max_batch_size}

{FACE}
# A batch costs a GPU little more than one picture, so a request waits half a millisecond for company: less than a
# caller can notice. The sizes that CUDA graphs exist for are sent as soon as they are full.
dynamic_batching {{
  preferred_batch_size: [ {preferred} ]
  max_queue_delay_microseconds: {_QUEUE_DELAY_US}
}}

# One instance on each GPU. A second one overlaps copies with computing and takes the memory again: measure first.
instance_group [
  {{
    count: 1
    kind: KIND_GPU
  }}
]

# A U-Net is many short kernels; a CUDA graph starts them all at once. One is captured for each size below, other sizes
# run without. Pictures don't need the stream that the next batch computes on to be copied back.
optimization {{
  cuda {{
    graphs: true
    busy_wait_events: false  # true wins microseconds and keeps a core busy, which decode and encode want
    output_copy_stream: true
{graphs}
  }}
}}

# The first run of each size captures its graph and takes longer; do it before the model counts as ready.
model_warmup [
{warmups}
]
"""


def _check_file(file: str) -> None:
    if not _FILE.fullmatch(file):
        raise OptionInvalid(f"The plan's file is {file!r}; Triton's TensorRT backend takes names that end with .plan.")
