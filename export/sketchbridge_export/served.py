"""Paints with a generator that a running server serves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from sketchbridge_export.errors import ParityFailed
from sketchbridge_export.interface import INPUT_NAME, OUTPUT_NAME
from sketchbridge_export.parity import Paint, Pictures


def paint_with_server(url: str, model: str, *, timeout_s: float = 60.0) -> Paint:
    """A painter that asks `model` at `url` (HOST:PORT, gRPC) for arrays; it raises ParityFailed if no answer comes."""

    def paint(batch: Pictures) -> NDArray[Any]:
        tensor = InferInput(INPUT_NAME, list(batch.shape), "UINT8")
        tensor.set_data_from_numpy(np.ascontiguousarray(batch))
        try:
            with InferenceServerClient(url) as client:
                painted = client.infer(model, [tensor], client_timeout=timeout_s).as_numpy(OUTPUT_NAME)
        except InferenceServerException as exc:
            raise ParityFailed(f"`{model}` at {url} does not paint: {exc.message()}") from exc
        if painted is None:
            raise ParityFailed(f"`{model}` at {url} gives no `{OUTPUT_NAME}`: it is no generator of ours.")
        return np.asarray(painted)

    return paint
