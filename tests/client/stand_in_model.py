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
        rows = pb_utils.get_input_tensor_by_name(request, self.input).as_numpy()[:, 0]  # (N, 1)
        try:
            pictures = [self.noted(data, request, parameters, len(rows)) for data in rows]
        except (UnidentifiedImageError, OSError) as exc:
            return refusal(str(exc), pb_utils.TritonError.INVALID_ARG)
        answers = [parameters["answer_text"].encode()] * len(rows) if "answer_text" in parameters else pictures
        columns = dict.fromkeys(self.outputs, answers) | {"timings": [self.times(parameters)] * len(rows)}
        wanted = [name for name in self.outputs if name in request.requested_output_names()]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.array(columns[name], dtype=np.object_).reshape(-1, 1)) for name in wanted]
        )

    def times(self, parameters: dict[str, Any]) -> bytes:
        slept_us = round(1e6 * float(parameters.get("sleep_s", 0)))
        steps = [
            {"model": "decode", "queue_us": None, "compute_us": 100},
            {"model": "encode", "queue_us": 20, "compute_us": slept_us},
        ]
        return str(parameters.get("timings_text", json.dumps(steps))).encode()

    def noted(self, data: bytes, request: Any, parameters: dict[str, Any], batch: int) -> bytes:
        try:
            image = Image.open(io.BytesIO(data)).convert("RGB")
        except UnidentifiedImageError as exc:
            raise UnidentifiedImageError(f"This is no picture: {len(data)} bytes came.") from exc
        notes = PngImagePlugin.PngInfo()
        notes.add_text("parameters", json.dumps(parameters))
        notes.add_text("request_id", request.request_id())
        notes.add_text("batch", str(batch))
        notes.add_text("sha256", hashlib.sha256(data).hexdigest())
        buffer = io.BytesIO()
        kind = parameters.get("output_format", "png")
        image.save(buffer, format=kind, **({"pnginfo": notes} if kind == "png" else {}))
        return buffer.getvalue()


def refusal(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse([], error=pb_utils.TritonError(message, code))
