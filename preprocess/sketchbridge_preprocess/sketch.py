"""Photo to sketch: four methods, each a pure function from a picture to dark lines on white paper.

`SKETCH_METHODS` is the table of them; `sketch` picks one by name. A method's keyword arguments, their defaults and
ranges are its parameters everywhere: in Python, on the command line and in a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchbridge_preprocess.checks import Image, check_range, shown
from sketchbridge_preprocess.errors import InvalidOption
from sketchbridge_preprocess.filters import blur, to_gray


@dataclass(frozen=True)
class Parameter:
    """One number of a sketch method: its default, the range it may take, and when to change it.

    default: None where the picture decides.
    """

    default: float | None
    minimum: float
    maximum: float
    help: str


@dataclass(frozen=True)
class SketchMethod:
    """A named method: the function, what it looks like in one sentence, and its parameters."""

    draw: Callable[..., Image]
    help: str
    parameters: Mapping[str, Parameter]


def canny(
    image: Image,
    *,
    low_threshold: float | None = None,
    high_threshold: float | None = None,
    blur_sigma: float = 1.4,
) -> Image:
    """Thin lines one pixel wide, by Canny's hysteresis.

    image: (H, W) or (H, W, 3) RGB uint8. low_threshold, high_threshold: 0 to 2,000, gradient in grey levels per pixel
    (L2, Sobel 3x3); edges above the high one are drawn, and those above the low one where they touch a drawn edge.
    Left out, the high one is what a tenth of the pixels exceed, but from 12 (noise) to 150 (a plain edge), and the low
    one is 0.4 of it: fur in the shade gets lines as a shoe on white does. blur_sigma: Gaussian blur before it, 0 (none)
    to 20 pixels.
    Returns (H, W) uint8, 0 on lines and 255 elsewhere. Raises InvalidOption if the low threshold exceeds the high one.
    Source: Canny, "A Computational Approach to Edge Detection", PAMI 1986, whose thresholds also follow a percentile of
    the picture's edges; the ratio of 0.4 is that of MATLAB's `edge`.
    """
    given = {"low_threshold": low_threshold, "high_threshold": high_threshold}
    _check("canny", blur_sigma=blur_sigma, **{name: value for name, value in given.items() if value is not None})
    gray = blur(to_gray(image), blur_sigma)
    across, down = (
        np.asarray(cv2.Sobel(gray, cv2.CV_16S, dx, 1 - dx, borderType=cv2.BORDER_REPLICATE), np.int16) for dx in (1, 0)
    )
    if high_threshold is None:
        high_threshold = max(_usual_threshold(across, down), low_threshold or 0)
    if low_threshold is None:
        low_threshold = _LOW_SHARE * high_threshold
    if low_threshold > high_threshold:
        raise InvalidOption(
            f"`low_threshold` is {low_threshold:g} and `high_threshold` {high_threshold:g}; "
            "the low one can't be higher."
        )
    edges = cv2.Canny(across, down, low_threshold, high_threshold, L2gradient=True)
    return np.asarray(255 - edges, np.uint8)


def _usual_threshold(across: NDArray[np.int16], down: NDArray[np.int16]) -> float:
    sparse = slice(None, None, max(1, round((across.size / _SAMPLED_PX) ** 0.5)))
    strength = np.hypot(across[sparse, sparse].astype(np.float32), down[sparse, sparse].astype(np.float32))
    return float(np.clip(np.quantile(strength, 1 - _DRAWN_SHARE), *_THRESHOLD_RANGE))


_SAMPLED_PX = 65_536  # on a grid: more pixels of a large photo would not say more
_DRAWN_SHARE = 0.1
_LOW_SHARE = 0.4
_THRESHOLD_RANGE = (12.0, 150.0)


def laplacian(image: Image, *, blur_sigma: float = 1.6, gain: float = 6.0, floor: float = 6.0) -> Image:
    """Soft double lines: the magnitude of the second derivative.

    image: (H, W) or (H, W, 3) RGB uint8. blur_sigma: Gaussian blur before it, 0 (none) to 20 pixels. gain: how dark a
    line gets, 0.1 to 50 grey levels per grey level of the derivative. floor: derivatives up to this many grey levels, 0
    to 255, stay white (noise). Returns (H, W) uint8, dark on white.
    Source: Marr and Hildreth, "Theory of Edge Detection", 1980, with OpenCV's 3x3 Laplacian.
    """
    _check("laplacian", blur_sigma=blur_sigma, gain=gain, floor=floor)
    response = np.abs(cv2.Laplacian(blur(to_gray(image), blur_sigma), cv2.CV_16S, ksize=3)).astype(np.float32)
    ink = np.clip((response - floor) * gain, 0, 255)
    return (255 - ink).astype(np.uint8)


def dodge(image: Image, *, blur_sigma: float = 8.0) -> Image:
    """Pencil shading: the gray picture divided by the blurred negative's negative ("colour dodge").

    image: (H, W) or (H, W, 3) RGB uint8. blur_sigma: 0.3 (hair-thin) to 100 (broad shading) pixels.
    Returns (H, W) uint8, soft dark lines on white. Source: the darkroom's dodge; blend mode of ISO 32000-1, 11.3.5.
    """
    _check("dodge", blur_sigma=blur_sigma)
    gray = to_gray(image)
    blurred_negative = blur(np.asarray(255 - gray, np.uint8), blur_sigma)
    return np.asarray(cv2.divide(gray, 255 - blurred_negative, scale=255), np.uint8)


def xdog(
    image: Image, *, sigma: float = 0.9, sharpness: float = 18.0, epsilon: float = 0.2, slope: float = 12.0
) -> Image:
    """Ink with filled shadows: the extended difference of Gaussians, thresholded softly.

    image: (H, W) or (H, W, 3) RGB uint8. sigma: line scale, 0.3 to 20 pixels (the wider Gaussian is 1.6 times it).
    sharpness: weight p of the edges against the tone, 0 to 200. epsilon: tone in [0, 1] below which ink begins.
    slope: phi of the soft threshold, 0.1 (pencil) to 200 (woodcut). Returns (H, W) uint8, dark on white.
    Source: Winnemoeller, Kyprianidis and Olsen, "XDoG", Computers & Graphics 2012, equations 5 and 7.
    """
    _check("xdog", sigma=sigma, sharpness=sharpness, epsilon=epsilon, slope=slope)
    tone = np.asarray(to_gray(image) / np.float32(255), np.float32)
    narrow = blur(tone, sigma)
    wide = blur(tone, 1.6 * sigma)
    response = (1 + sharpness) * narrow - sharpness * wide
    soft = np.where(response >= epsilon, 1.0, 1.0 + np.tanh(slope * (response - epsilon)))
    return np.asarray(np.rint(255 * np.clip(soft, 0, 1)), np.uint8)


_BLUR = Parameter(1.4, 0, 20, "Gaussian blur first, in pixels; raise it for noisy photos")

SKETCH_METHODS: Mapping[str, SketchMethod] = MappingProxyType(
    {
        "canny": SketchMethod(
            canny,
            "thin lines one pixel wide",
            {
                "low_threshold": Parameter(None, 0, 2000, "gradient from which a line goes on; lower draws more"),
                "high_threshold": Parameter(None, 0, 2000, "gradient from which a line begins; lower draws more"),
                "blur_sigma": _BLUR,
            },
        ),
        "laplacian": SketchMethod(
            laplacian,
            "soft double lines",
            {
                "blur_sigma": Parameter(1.6, 0, 20, _BLUR.help),
                "gain": Parameter(6.0, 0.1, 50, "how dark the lines get"),
                "floor": Parameter(6.0, 0, 255, "weaker edges stay white; raise it for noisy photos"),
            },
        ),
        "dodge": SketchMethod(
            dodge,
            "pencil with soft shading",
            {
                "blur_sigma": Parameter(8.0, 0.3, 100, "width of the shading in pixels"),
            },
        ),
        "xdog": SketchMethod(
            xdog,
            "ink with filled shadows",
            {
                "sigma": Parameter(0.9, 0.3, 20, "line scale in pixels"),
                "sharpness": Parameter(18.0, 0, 200, "weight of edges against tone"),
                "epsilon": Parameter(0.2, 0, 1, "tone below which ink begins; raise it for more ink"),
                "slope": Parameter(12.0, 0.1, 200, "softness: low is pencil, high is woodcut"),
            },
        ),
    }
)


def sketch(image: Image, *, method: str = "canny", **parameters: float) -> Image:
    """Draw a picture by the method of that name.

    image: (H, W) or (H, W, 3) RGB uint8. parameters: keyword arguments of the method; see `SKETCH_METHODS`.
    Returns (H, W) uint8, dark lines on white. Raises InvalidImage, or InvalidOption for an unknown method, an unknown
    parameter or a value outside its range.
    """
    chosen = SKETCH_METHODS.get(method)
    if chosen is None:
        raise InvalidOption(f"`method` is {shown(method)}; expected one of {', '.join(SKETCH_METHODS)}.")
    unknown = sorted(set(parameters) - set(chosen.parameters))
    if unknown:
        raise InvalidOption(f"`{method}` has no parameter `{unknown[0]:.80}`; it has {', '.join(chosen.parameters)}.")
    return chosen.draw(image, **parameters)


def _check(method: str, **values: float) -> None:
    for name, value in values.items():
        allowed = SKETCH_METHODS[method].parameters[name]
        check_range(name, value, allowed.minimum, allowed.maximum)
