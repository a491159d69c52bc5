"""A model for Triton that does nothing, so that what is measured is the way to it and back.

It looks at no input but for its shape. An output of BYTES is the file `answer` beside this one, or, where the config's
parameter `echo` is set, the input itself; an output of numbers is zeros. `timings` tells of three steps that took no
time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

_STEPS = ("decode", "shoes_generator", "encode")
_TIMINGS = json.dumps([{"model": step, "queue_us": 0, "compute_us": 0} for step in _STEPS]).encode()


class TritonPythonModel:
    """See the module."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config and the answer."""
        config = json.loads(args["model_config"])
        output = config["output"][0]
        self._output = output["name"]
        self._echoes = "echo" in config.get("parameters", {})
        self._answer: Any = Path(__file__).with_name("answer").read_bytes()
        self._shape = tuple(int(axis) for axis in output["dims"])
        self._dtype = pb_utils.triton_string_to_numpy(output["data_type"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        (given,) = request.inputs()
        shape = (given.shape()[0], *self._shape)
        if self._echoes:
            array = given.as_numpy()
        elif self._dtype == np.object_:
            array = np.full(shape, self._answer, dtype=np.object_)
        else:
            array = np.zeros(shape, dtype=self._dtype)
        tensors = [pb_utils.Tensor(self._output, array)]
        if "timings" in request.requested_output_names():
            tensors.append(pb_utils.Tensor("timings", np.full((given.shape()[0], 1), _TIMINGS, dtype=np.object_)))
        return pb_utils.InferenceResponse(tensors)
