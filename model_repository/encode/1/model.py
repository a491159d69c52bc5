"""Pixels to bytes."""

from __future__ import annotations

from sketchbridge_preprocess import Image, RequestOptions, to_wire
from sketchbridge_server.steps import Answer, PictureStep


class TritonPythonModel(PictureStep):
    """See config.pbtxt for inputs and outputs."""

    input_name = "image"

    def answer(self, picture: Image, options: RequestOptions, wanted: set[str]) -> Answer:
        """Encode in the format the request asks for."""
        return {"image_bytes": to_wire(picture, options)}
