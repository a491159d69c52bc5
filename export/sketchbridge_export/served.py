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


def paint_with_server(url: str, model: str, version: int | None = None, *, timeout_s: float = 60.0) -> Paint:
    """A painter that asks `model` at `url` (HOST:PORT, gRPC) for arrays; it raises ParityFailed if no answer comes.

    version: the one to paint with; None is for whichever the server takes. A batch that is larger than the server's
    configuration allows is sent in parts.
    """
    asked = "" if version is None else str(version)

    def infer(client: InferenceServerClient, batch: Pictures) -> NDArray[Any] | None:
        tensor = InferInput(INPUT_NAME, list(batch.shape), "UINT8")
        tensor.set_data_from_numpy(np.ascontiguousarray(batch))
        painted = client.infer(model, [tensor], asked, client_timeout=timeout_s).as_numpy(OUTPUT_NAME)
        return None if painted is None else np.asarray(painted)

    def paint(batch: Pictures) -> NDArray[Any]:
        try:
            with InferenceServerClient(url) as client:
                config = client.get_model_config(model, asked, client_timeout=timeout_s).config
                most = config.max_batch_size or len(batch)
                painted = [infer(client, batch[start : start + most]) for start in range(0, len(batch), most)]
        except InferenceServerException as exc:
            raise ParityFailed(f"`{model}` at {url} does not paint: {exc.message()}") from exc
        parts = [part for part in painted if part is not None]
        if len(parts) < len(painted):
            raise ParityFailed(f"`{model}` at {url} gives no `{OUTPUT_NAME}`: it is no generator of ours.")
        return np.concatenate(parts)

    return paint
