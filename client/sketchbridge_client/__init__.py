"""The Sketchbridge SDK: send a drawing and get a photo, send a photo and get a drawing.

    from sketchbridge_client import Client

    with Client("127.0.0.1:8001") as client:
        client.paint("shoe.png", model="shoes").save("photo.png")

`Client` has the verbs, `Picture` and `Roundtrip` are what they give back, `ModelInfo` is what a server has, and
everything that can go wrong is a `SketchbridgeError`.
"""

from __future__ import annotations

from sketchbridge_client.client import Client
from sketchbridge_client.errors import (
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
from sketchbridge_client.models import ModelInfo, ModelKind
from sketchbridge_client.pictures import Picture, Roundtrip

__all__ = [
    "MAX_IMAGE_BYTES",
    "Client",
    "ConnectionFailed",
    "InvalidArgument",
    "InvalidInput",
    "ModelInfo",
    "ModelKind",
    "ModelNotFound",
    "ModelNotReady",
    "Overloaded",
    "Picture",
    "PictureInput",
    "RequestTimeout",
    "ResponseInvalid",
    "Roundtrip",
    "ServerError",
    "SketchbridgeError",
]
