"""What the models of a FakeServer take, give and refuse: what those of the real one do, but for the paintings.

The pictures are made by Pillow in a few milliseconds. They depend on the pixels that came and on nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps

from sketchbridge_client.arrays import arrays_of
from sketchbridge_client.calls import ROUNDTRIP_SUFFIX, SKETCH_MODEL, Fit, Normalise
from sketchbridge_client.formats import OutputFormat
from sketchbridge_client.messages import Failed, Infer, Inferred, Parameter
from sketchbridge_client.models import PHOTO, REPAINTED, SKETCH, TensorInfo
from sketchbridge_client.timings import TIMINGS

VERSION = "1"
MAX_BATCH_SIZE = 8
SIDE_PX = 256
"""Side of the square pictures that the models exchange."""
GENERATOR_SUFFIX = "_generator"

# The options of a request. A test holds these tables against those of the server.
CHOICES: dict[str, tuple[str, ...]] = {
    "fit": get_args(Fit),
    "normalise": get_args(Normalise),
    "method": ("canny", "laplacian", "dodge", "xdog"),
    "output_format": get_args(OutputFormat),
    "output_encoding": ("raw", "base64"),
}
WHOLE_NUMBERS = {"quality": (1, 100), "max_side_px": (16, 4096)}
METHOD_NUMBERS: dict[str, dict[str, tuple[float, float]]] = {
    "canny": {"low_threshold": (0, 2000), "high_threshold": (0, 2000), "blur_sigma": (0, 20)},
    "laplacian": {"blur_sigma": (0, 20), "gain": (0.1, 50), "floor": (0, 255)},
    "dodge": {"blur_sigma": (0.3, 100)},
    "xdog": {"sigma": (0.3, 20), "sharpness": (0, 200), "epsilon": (0, 1), "slope": (0.1, 200)},
}
_DEFAULTS: dict[str, Any] = {
    "fit": "letterbox",
    "method": "canny",
    "output_format": "png",
    "output_encoding": "raw",
    "quality": 90,
    "max_side_px": 1024,
}
_MAX_PIXELS = 50_000_000
_LONGEST_SHOWN = 80  # characters of a value in a message

PictureMaker = Callable[[bytes], bytes]
"""From the file that came to the file to answer with."""
Options = Mapping[str, Any]
Row = Mapping[str, bytes | NDArray[np.uint8]]
"""What one picture of a batch is answered with, by output."""
Makers = Mapping[str, PictureMaker]
"""What the caller answers with in place of the models of these names."""


@dataclass(frozen=True)
class FakeModel:
    """One model. answer: one picture, its input's bytes or pixels. steps: the models that run within it."""

    name: str
    platform: str
    input: TensorInfo
    outputs: tuple[TensorInfo, ...]
    answer: Callable[[Any, Options, Makers], Row]
    steps: tuple[str, ...] = ()
    takes_options: bool = True

    def metadata(self) -> dict[str, Any]:
        """As the server tells it."""
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": self.platform,
            "inputs": [_told(self.input)],
            "outputs": [_told(output) for output in self.outputs],
        }

    def run(self, request: Infer, rows: NDArray[Any], makers: Makers) -> dict[str, NDArray[Any]]:
        """The outputs, by name, each with as many rows as came. Raises Failed for what the model refuses."""
        options = read_options(request.parameters) if self.takes_options else _DEFAULTS
        pictures = [row.item() if row.dtype == object else row for row in rows]
        answers = [{**self.answer(picture, options, makers), TIMINGS: self._times()} for picture in pictures]
        wanted = [output.name for output in self.outputs if output.name in request.outputs or not request.outputs]
        return {name: _stacked([answer[name] for answer in answers]) for name in wanted}

    def _times(self) -> bytes:
        """What its steps took: nothing."""
        steps = self.steps or (self.name,)
        queues_us = (None, *(0 for _ in steps[1:]))
        told = [{"model": step, "queue_us": us, "compute_us": 0} for step, us in zip(steps, queues_us, strict=True)]
        return json.dumps(told).encode()

    def rows(self, request: Infer) -> NDArray[Any]:
        """The input, (N, ...). Raises Failed for what the server refuses before the model sees it."""
        outputs = {output.name for output in self.outputs}
        for name in request.outputs:
            _require(name in outputs, f"unexpected inference output '{name}' for model '{self.name}'")
        for tensor in request.inputs:
            _require(
                tensor.name == self.input.name, f"unexpected inference input '{tensor.name}' for model '{self.name}'"
            )
        (tensor,) = request.inputs
        _require(
            tensor.datatype == self.input.datatype,
            f"inference input '{tensor.name}' data-type is '{tensor.datatype}', but model '{self.name}' expects "
            f"'{self.input.datatype}'",
        )
        expected = self.input.shape
        fits = len(tensor.shape) == len(expected) and all(
            wanted in {-1, side} for wanted, side in zip(expected, tensor.shape, strict=True)
        )
        _require(
            fits,
            f"unexpected shape for input '{tensor.name}' for model '{self.name}'. Expected {_listed(expected)}, got "
            f"{_listed(tensor.shape)}.",
        )
        _require(
            tensor.shape[0] <= MAX_BATCH_SIZE,
            f"inference request batch-size must be <= {MAX_BATCH_SIZE} for '{self.name}'",
        )
        _require(0 not in tensor.shape, f"input '{tensor.name}' for model '{self.name}' is empty")
        return arrays_of(Inferred(self.name, VERSION, request.inputs))[tensor.name]


def painter_models(name: str) -> dict[str, FakeModel]:
    """The three models that `sketchbridge export` makes of one generator."""

    def paint(drawing: bytes, options: Options, makers: Makers) -> bytes:
        if name in makers:
            return makers[name](drawing)
        return _to_wire(_painting(name, decode(drawing), options), options)

    def there_and_back(photo: bytes, options: Options, makers: Makers) -> Row:
        drawing = _sketch(photo, options, makers)[SKETCH]
        assert isinstance(drawing, bytes)  # noqa: S101  as _sketch makes it
        return {SKETCH: drawing, REPAINTED: paint(drawing, options, makers)}

    def generate(drawing: NDArray[np.uint8], options: Options, makers: Makers) -> Row:
        painting = paint(_encoded(Image.fromarray(drawing), options), options, makers)
        return {PHOTO: np.asarray(_fitted(decode(painting), options))}

    generator = f"{name}{GENERATOR_SUFFIX}"
    made = (
        FakeModel(
            name,
            "ensemble",
            _files(SKETCH),
            (_files(PHOTO), _files(TIMINGS)),
            lambda drawing, options, makers: {PHOTO: paint(drawing, options, makers)},
            ("decode", generator, "encode"),
        ),
        FakeModel(
            f"{name}{ROUNDTRIP_SUFFIX}",
            "ensemble",
            _files(PHOTO),
            (_files(SKETCH), _files(REPAINTED), _files(TIMINGS)),
            there_and_back,
            (SKETCH_MODEL, generator, "encode"),
        ),
        FakeModel(generator, "onnxruntime_onnx", _pixels(SKETCH), (_pixels(PHOTO),), generate, takes_options=False),
    )
    return {model.name: model for model in made}


def building_blocks() -> dict[str, FakeModel]:
    """The models that every server has beside its painters."""
    made = (
        FakeModel(
            SKETCH_MODEL, "python", _files(PHOTO), (_files(SKETCH), _pixels("sketch_image"), _files(TIMINGS)), _sketch
        ),
        FakeModel("decode", "python", _files("image_bytes"), (_pixels("image"), _pixels(SKETCH)), _decode),
        FakeModel(
            "encode",
            "python",
            TensorInfo("image", "UINT8", (-1, -1, -1, 3)),
            (_files("image_bytes"), _files(TIMINGS)),
            lambda pixels, options, _: {"image_bytes": _to_wire(Image.fromarray(pixels), options)},
        ),
    )
    return {model.name: model for model in made}


def read_options(parameters: Mapping[str, Parameter]) -> Options:
    """All options, with the server's own where nothing is given. Raises Failed in the words of the server."""
    for name, value in parameters.items():
        if name in CHOICES:
            _require(
                value in CHOICES[name], f"`{name}` is {_shown(value)}; expected one of {', '.join(CHOICES[name])}."
            )
        elif name in WHOLE_NUMBERS:
            whole = isinstance(value, int) and not isinstance(value, bool)
            _require(whole, f"`{name}` is {_shown(value)}; expected a whole number.")
            _check_range(name, value, WHOLE_NUMBERS[name])
        else:
            known = ", ".join([*CHOICES, *WHOLE_NUMBERS])
            _require(
                any(name in numbers for numbers in METHOD_NUMBERS.values()),
                f"There is no option `{name:.80}`. There are {known}, and the parameters of the methods.",
            )
    options = {**_DEFAULTS, **parameters}
    numbers = METHOD_NUMBERS[options["method"]]
    for name in parameters.keys() - CHOICES.keys() - WHOLE_NUMBERS.keys():
        _require(_is_number(options[name]), f"`{name}` is {_shown(options[name])}; expected a number.")
        _require(name in numbers, f"`{options['method']}` has no parameter `{name}`; it has {', '.join(numbers)}.")
        _check_range(name, float(options[name]), numbers[name])
    return options


def decode(data: bytes) -> Image.Image:
    """An upright RGB image of a PNG, JPEG, WebP or BMP file, or of its base64 text. Raises Failed for anything else."""
    try:
        with Image.open(io.BytesIO(_file(data)), formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            _require(
                image.width * image.height <= _MAX_PIXELS,
                f"The picture is {image.width}x{image.height} pixels; at most {_MAX_PIXELS:,} are taken.",
            )
            upright = ImageOps.exif_transpose(image)
            if upright.mode not in {"RGBA", "LA", "PA"} and "transparency" not in upright.info:
                return upright.convert("RGB")
            paper = Image.new("RGBA", upright.size, "white")
            paper.alpha_composite(upright.convert("RGBA"))
            return paper.convert("RGB")
    except Failed:
        raise
    except Exception as exc:
        raise Failed(
            "INVALID_ARGUMENT", f"This is no whole picture: {len(data)} bytes came. Send PNG, JPEG, WebP or BMP."
        ) from exc


def _file(data: bytes) -> bytes:
    text = data.partition(b",")[2] if data.startswith(b"data:") else data
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except ValueError:
        return data


def _painting(name: str, drawing: Image.Image, options: Options) -> Image.Image:
    """(256, 256) RGB: the drawing in two colours that follow from the model's name and from each of its pixels."""
    fitted = _fitted(drawing, options)
    digest = hashlib.sha256(name.encode() + fitted.tobytes()).digest()
    ink, paper = ([shade // 2 + lightest for shade in digest[at : at + 3]] for at, lightest in ((0, 0), (3, 128)))
    return ImageOps.colorize(fitted.convert("L"), black=tuple(ink), white=tuple(paper))


def _sketch(photo: bytes, options: Options, makers: Makers) -> Row:
    if SKETCH_MODEL in makers:
        drawn = makers[SKETCH_MODEL](photo)
        return {SKETCH: drawn, "sketch_image": np.asarray(_fitted(decode(drawn), options))}
    image = decode(photo)
    scale = min(1.0, options["max_side_px"] / max(image.size))
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    lines = ImageOps.invert(image.convert("L").filter(ImageFilter.FIND_EDGES))
    return {SKETCH: _to_wire(lines, options), "sketch_image": np.asarray(_fitted(lines.convert("RGB"), options))}


def _decode(picture: bytes, options: Options, _: Makers) -> Row:
    pixels = np.asarray(_fitted(decode(picture), options))
    return {"image": pixels, SKETCH: pixels}


def _fitted(image: Image.Image, options: Options) -> Image.Image:
    size = (SIDE_PX, SIDE_PX)
    if options["fit"] == "stretch":
        return image.resize(size)
    if options["fit"] == "crop":
        return ImageOps.fit(image, size)
    return ImageOps.pad(image, size, color="white")


def _encoded(image: Image.Image, options: Options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=options["output_format"], quality=options["quality"])
    return buffer.getvalue()


def _to_wire(image: Image.Image, options: Options) -> bytes:
    data = _encoded(image, options)
    return base64.b64encode(data) if options["output_encoding"] == "base64" else data


def _stacked(values: list[bytes | NDArray[np.uint8]]) -> NDArray[Any]:
    if isinstance(values[0], bytes):
        return np.array(values, dtype=object).reshape(-1, 1)  # (N, 1)
    return np.stack([np.asarray(value) for value in values])  # (N, H, W, 3)


def _files(name: str) -> TensorInfo:
    return TensorInfo(name, "BYTES", (-1, 1))


def _pixels(name: str) -> TensorInfo:
    return TensorInfo(name, "UINT8", (-1, SIDE_PX, SIDE_PX, 3))


def _told(tensor: TensorInfo) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _listed(shape: tuple[int, ...]) -> str:
    return f"[{','.join(str(side) for side in shape)}]"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_range(name: str, value: Any, bounds: tuple[float, float]) -> None:
    least, most = bounds
    _require(least <= value <= most, f"`{name}` is {value}; expected a number from {least:g} to {most:g}.")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _require(holds: bool, words: str) -> None:  # noqa: FBT001
    """Refuse the request unless this holds."""
    if not holds:
        raise Failed("INVALID_ARGUMENT", words)
