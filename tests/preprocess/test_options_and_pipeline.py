"""What a request may ask for, and the steps that answer it."""

from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

import sketchbridge_preprocess
from sketchbridge_preprocess import (
    SKETCH_METHODS,
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    Limits,
    RequestOptions,
    canny,
    decode,
    draw_photo,
    encode,
    image_for_model,
    read_options,
    sketch_for_model,
    to_wire,
)


def photo(width: int = 400, height: int = 300) -> Any:
    image = np.full((height, width, 3), 220, np.uint8)
    cv2.ellipse(image, (width // 2, height // 2), (width // 4, height // 4), 20, 0, 360, (180, 40, 60), -1)
    return image


def test_without_parameters_everything_has_its_default() -> None:
    assert read_options({}) == RequestOptions()


def test_parameters_are_read_as_they_come_over_the_wire() -> None:
    options = read_options({"method": "xdog", "sigma": 2, "epsilon": 0.5, "output_format": "webp", "quality": 40})
    assert (options.method, dict(options.method_parameters)) == ("xdog", {"sigma": 2.0, "epsilon": 0.5})
    assert (options.output_format, options.quality) == ("webp", 40)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"colour": "red"}, "no option `colour`.*fit, normalise, method"),
        ({"fit": "squash"}, "`fit` is 'squash'; expected one of letterbox"),
        ({"fit": 3}, "`fit` is 3"),
        ({"method": "pencil"}, "`method` is 'pencil'"),
        ({"quality": 101}, "`quality` is 101; expected a number from 1 to 100"),
        ({"quality": "90"}, "`quality` is '90'; expected a whole number"),
        ({"quality": True}, "`quality` is True"),
        ({"quality": 90.5}, "expected a whole number"),
        ({"max_side_px": 0}, "from 16 to 4096"),
        ({"low_threshold": "low"}, "`low_threshold` is 'low'; expected a number"),
        ({"low_threshold": -1}, "from 0 to 2000"),
        ({"sigma": 1.0}, "`canny` has no parameter `sigma`; it has low_threshold"),
        ({"output_encoding": "hex"}, "raw, base64"),
        ({"method": "xdog", "sigma": 10**400}, "ordinary size"),
        ({"method": "x" * 100_000}, r"`method` is 'x{70,80}\.\.\.; expected"),
    ],
)
def test_wrong_parameters_are_refused_by_name(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption, match=words):
        read_options(parameters)


def test_no_method_parameter_is_called_like_another_option() -> None:
    names = {name for method in SKETCH_METHODS.values() for name in method.parameters}
    assert not names & set(RequestOptions.__dataclass_fields__)


def test_base64_and_data_urls_are_read_like_the_file_itself() -> None:
    for output_format in ("png", "jpeg", "webp"):
        data = encode(photo(), output_format=output_format)
        text = base64.b64encode(data)
        expected = image_for_model(data, RequestOptions())
        for form in (text, f"data:image/{output_format};base64,".encode() + text):
            assert np.array_equal(image_for_model(form, RequestOptions()), expected)
        wrapped = base64.encodebytes(data)
        assert np.array_equal(image_for_model(wrapped, RequestOptions()), expected)
    bitmap = io.BytesIO()
    Pillow.fromarray(photo()).save(bitmap, "BMP")
    text = base64.b64encode(bitmap.getvalue())
    assert np.array_equal(image_for_model(text, RequestOptions()), image_for_model(bitmap.getvalue(), RequestOptions()))


def test_broken_base64_is_refused_and_long_base64_is_not_decoded() -> None:
    with pytest.raises(InvalidImage, match="looks like base64"):
        image_for_model(b"iVBORw0KGgo!!!", RequestOptions())
    with pytest.raises(InvalidImage, match="data URL is not base64"):
        image_for_model(b"data:image/png,abc", RequestOptions())
    with pytest.raises(ImageTooLarge, match="characters of base64"):
        image_for_model(b"iVBORw0KGgo" + b"A" * 1000, RequestOptions(), limits=Limits(max_bytes=100))


def test_a_drawing_reaches_the_model_as_dark_lines_on_white_in_three_equal_channels() -> None:
    drawing = np.full((300, 200, 3), (20, 40, 20), np.uint8)
    cv2.line(drawing, (30, 40), (160, 260), (240, 240, 240), 5, cv2.LINE_AA)
    lines = sketch_for_model(encode(drawing), RequestOptions())
    assert lines.shape == (256, 256, 3)
    assert np.ptp(lines, axis=2).max() == 0
    assert lines[0, 0, 0] == 255
    assert lines.min() == 0
    as_is = sketch_for_model(encode(drawing), RequestOptions(normalise="off"))
    assert as_is[128, 60].tolist() == [20, 40, 20]


def test_a_photo_is_drawn_at_its_own_size_unless_it_is_larger_than_asked() -> None:
    data = encode(photo())
    assert np.array_equal(draw_photo(data, RequestOptions()), canny(photo()))
    assert draw_photo(data, RequestOptions(max_side_px=100)).shape == (75, 100)


def test_the_answer_comes_in_the_format_asked_for() -> None:
    assert np.array_equal(decode(to_wire(photo(), RequestOptions())), photo())
    text = to_wire(photo(), RequestOptions(output_format="webp", output_encoding="base64"))
    assert base64.b64decode(text, validate=True)[8:12] == b"WEBP"


def test_all_is_what_is_there() -> None:
    public = {name for name in vars(sketchbridge_preprocess) if not name.startswith("_")}
    modules = {"checks", "decode", "encode", "errors", "filters", "fit", "header", "normalise", "options", "pipeline"}
    assert set(sketchbridge_preprocess.__all__) == public - (modules - {"decode", "encode", "fit"}) - {"thinning"}
