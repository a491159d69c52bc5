"""A model that answers as the real ones do but paints nothing: the picture comes back, with notes in its text chunks.

Every model of the stand-in repository is this file; what it does besides is said in its config (`sleep_s`, `die`) or in
the request (`sleep_s`, `raise_error`, `answer_text`).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image, PngImagePlugin, UnidentifiedImageError


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.input = config["input"][0]["name"]
        self.outputs = [output["name"] for output in config["output"] if output["data_type"] == "TYPE_STRING"]
        self.settings = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        parameters = json.loads(request.parameters())
        time.sleep(float(parameters.get("sleep_s", self.settings.get("sleep_s", 0))))
        if "die" in self.settings:
            os._exit(1)
        if "raise_error" in parameters:
            return refusal("as asked", getattr(pb_utils.TritonError, parameters["raise_error"]))
        data = pb_utils.get_input_tensor_by_name(request, self.input).as_numpy().item()
        try:
            image = Image.open(io.BytesIO(data)).convert("RGB")
        except (UnidentifiedImageError, OSError):
            return refusal(f"This is no picture: {len(data)} bytes came.", pb_utils.TritonError.INVALID_ARG)
        notes = PngImagePlugin.PngInfo()
        notes.add_text("parameters", json.dumps(parameters))
        notes.add_text("request_id", request.request_id())
        notes.add_text("sha256", hashlib.sha256(data).hexdigest())
        buffer = io.BytesIO()
        kind = parameters.get("output_format", "png")
        image.save(buffer, format=kind, **({"pnginfo": notes} if kind == "png" else {}))
        answer = parameters["answer_text"].encode() if "answer_text" in parameters else buffer.getvalue()
        wanted = request.requested_output_names()
        tensor = np.array([[answer]], dtype=np.object_)  # (N, 1)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, tensor) for name in self.outputs if name in wanted])


def refusal(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse([], error=pb_utils.TritonError(message, code))
