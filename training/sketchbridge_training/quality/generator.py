"""The generators as they are served: the ONNX file of the highest version, run as a batch of one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from sketchbridge_preprocess import Image
from sketchbridge_training.errors import DataInvalid


@dataclass(frozen=True)
class Artefact:
    """The file that is served for a domain."""

    path: Path
    version: int
    sha256: str


def find_artefact(repository: Path, domain: str) -> Artefact | None:
    """`repository`/<domain>_generator/<highest version>/model.onnx, None if there is none."""
    folder = repository / f"{domain}_generator"
    versions = [int(path.parent.name) for path in folder.glob("*/model.onnx") if path.parent.name.isdecimal()]
    if not versions:
        return None
    path = folder / str(max(versions)) / "model.onnx"
    return Artefact(path, max(versions), hashlib.sha256(path.read_bytes()).hexdigest())


class Generator:
    """Paints by an artefact."""

    def __init__(self, artefact: Artefact, *, threads: int = 0) -> None:
        """threads: 0 for as many as there are cores. Raises DataInvalid if it is no generator of ours."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(artefact.path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # the runtime has a dozen kinds, without a common base but this
            raise DataInvalid(f"`{artefact.path}` can't be loaded: {str(exc).splitlines()[0][:200]}") from exc
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        kinds = [(value.type, value.shape[1:]) for value in (*inputs, *outputs)]
        if len(inputs) != 1 or len(outputs) != 1 or any(kind != ("tensor(uint8)", [256, 256, 3]) for kind in kinds):
            raise DataInvalid(
                f"`{artefact.path}` takes and gives {kinds}; expected one input and one output of uint8, "
                "(N, 256, 256, 3). Install generators with `sketchbridge export`."
            )
        self._input = inputs[0].name

    def paint(self, drawing: Image) -> Image:
        """(256, 256, 3) RGB uint8 from a (256, 256, 3) uint8 drawing, dark lines on white."""
        (painted,) = self._session.run(None, {self._input: drawing[None]})
        return np.asarray(painted[0], np.uint8)
