"""Bytes to pixels: a picture as it is, a drawing redrawn for a generator, or both."""

from __future__ import annotations

from sketchbridge_preprocess import RequestOptions, image_for_model, sketch_for_model
from sketchbridge_server.steps import Answer, PictureStep

_OUTPUTS = {"image": image_for_model, "sketch": sketch_for_model}


class TritonPythonModel(PictureStep):
    """See config.pbtxt for inputs and outputs."""

    input_name = "image_bytes"

    def answer(self, picture: bytes, options: RequestOptions, wanted: set[str]) -> Answer:
        """Decode into each wanted output."""
        return {name: make(picture, options) for name, make in _OUTPUTS.items() if name in wanted}
