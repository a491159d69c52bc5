"""The Sketchbridge SDK: send a drawing and get a photo, send a photo and get a drawing.

    from sketchbridge_client import Client

    with Client("127.0.0.1:8001") as client:
        client.paint("shoe.png", model="shoes").save("photo.png")

`Client` has the verbs, `Picture` and `Roundtrip` are what they give back, `ModelInfo` is what a server has, and
everything that can go wrong is a `SketchbridgeError`.
"""

from __future__ import annotations

from sketchbridge_client.aio import AsyncClient
from sketchbridge_client.arrays import Inference
from sketchbridge_client.async_live_drawing import AsyncLiveDrawing
from sketchbridge_client.batches import PictureBatch
from sketchbridge_client.client import Client
from sketchbridge_client.conversation import Hedge
from sketchbridge_client.errors import (
    AccessDenied,
    BatchFailed,
    ConnectionFailed,
    InvalidArgument,
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    RequestTimeout,
    ResponseInvalid,
    ServerError,
    SketchbridgeError,
)
from sketchbridge_client.inputs import MAX_IMAGE_BYTES, PictureInput
from sketchbridge_client.live_drawing import LiveDrawing
from sketchbridge_client.metrics import ClientMetrics
from sketchbridge_client.models import ModelDetails, ModelInfo, ModelKind, ModelStats, TensorInfo
from sketchbridge_client.pictures import Picture, Roundtrip
from sketchbridge_client.retries import NEVER, Retry
from sketchbridge_client.targets import Tls
from sketchbridge_client.timings import StepTimings, Timings

__all__ = [
    "MAX_IMAGE_BYTES",
    "NEVER",
    "AccessDenied",
    "AsyncClient",
    "AsyncLiveDrawing",
    "BatchFailed",
    "Client",
    "ClientMetrics",
    "ConnectionFailed",
    "Hedge",
    "Inference",
    "InvalidArgument",
    "InvalidInput",
    "LiveDrawing",
    "ModelDetails",
    "ModelInfo",
    "ModelKind",
    "ModelNotFound",
    "ModelNotReady",
    "ModelStats",
    "Overloaded",
    "Picture",
    "PictureBatch",
    "PictureInput",
    "RequestTimeout",
    "ResponseInvalid",
    "Retry",
    "Roundtrip",
    "ServerError",
    "SketchbridgeError",
    "StepTimings",
    "TensorInfo",
    "Timings",
    "Tls",
]
