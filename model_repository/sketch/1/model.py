"""A photo to its sketch."""

from __future__ import annotations

from sketchbridge_preprocess import Image, RequestOptions, draw_photo, lines_for_model, to_wire
from sketchbridge_server.steps import Answer, PictureStep


class TritonPythonModel(PictureStep):
    """See config.pbtxt for inputs and outputs."""

    input_name = "photo"

    def answer(self, picture: bytes, options: RequestOptions, wanted: set[str]) -> Answer:
        """Draw once; encode it, and redraw it for a generator, as wanted."""
        lines = draw_photo(picture, options)
        answer: dict[str, bytes | Image] = {}
        if "sketch" in wanted:
            answer["sketch"] = to_wire(lines, options)
        if "sketch_image" in wanted:
            answer["sketch_image"] = lines_for_model(lines, options)
        return answer
