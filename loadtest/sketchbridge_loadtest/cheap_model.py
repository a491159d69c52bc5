"""A model for Triton that does nothing, so that what is measured is the way to it and back.

It looks at no input but for its shape. An output of BYTES is the file `answer` beside this one, or, where the config's
parameter `echo` is set, the input itself; an output of numbers is zeros.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """See the module."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the config and the answer."""
        config = json.loads(args["model_config"])
        (output,) = config["output"]
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
        return pb_utils.InferenceResponse([pb_utils.Tensor(self._output, array)])
