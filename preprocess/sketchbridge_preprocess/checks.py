"""The shapes and dtypes every function here agrees on, checked in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sketchbridge_preprocess.errors import InvalidImage, InvalidOption

Image = NDArray[np.uint8]
"""(H, W) gray or (H, W, 3) RGB, uint8 in [0, 255], H and W at least 1."""


def check_image(image: Any, *, name: str = "image") -> Image:
    """Return `image` unchanged if it is (H, W) or (H, W, 3) uint8 with at least one pixel.

    Raises InvalidImage that says what came, what is taken and what to do.
    """
    wanted = "(H, W) or (H, W, 3) uint8 in [0, 255]"
    if not isinstance(image, np.ndarray):
        raise InvalidImage(f"`{name}` is a {type(image).__name__}; expected a numpy array, {wanted}.")
    described = f"`{name}` is {image.shape} {image.dtype}; expected {wanted}."
    if image.dtype != np.uint8:
        advice = "Multiply by 255 if it is in [0, 1], then cast" if image.dtype.kind == "f" else "Rescale and cast"
        raise InvalidImage(f"{described} {advice} with `.astype(numpy.uint8)`.")
    if image.ndim == 3 and image.shape[2] == 4:
        raise InvalidImage(f"{described} Blend the alpha channel over white first.")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InvalidImage(f"{described} Pass one picture, channels last.")
    if image.size == 0:
        raise InvalidImage(f"{described} It has no pixels.")
    return image


def check_range(name: str, value: float, minimum: float, maximum: float) -> None:
    """Raise InvalidOption unless minimum <= value <= maximum (NaN is outside every range)."""
    if not minimum <= value <= maximum:
        raise InvalidOption(f"`{name}` is {value}; expected a number from {minimum:g} to {maximum:g}.")


def check_whole(name: str, value: object, minimum: int, maximum: int) -> int:
    """Return `value` if it is a whole number from minimum to maximum. Raises InvalidOption."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidOption(f"`{name}` is {shown(value)}; expected a whole number.")
    check_range(name, value, minimum, maximum)
    return value


def check_odd(name: str, value: object, minimum: int, maximum: int) -> int:
    """Return `value` if it is an odd whole number from minimum to maximum. Raises InvalidOption."""
    number = check_whole(name, value, minimum, maximum)
    if number % 2 == 0:
        raise InvalidOption(f"`{name}` is {number}; expected an odd number, so that a pixel lies in the middle.")
    return number


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise InvalidOption unless `value` is one of `choices`."""
    if value not in choices:
        raise InvalidOption(f"`{name}` is {shown(value)}; expected one of {', '.join(choices)}.")


def shown(value: object) -> str:
    """`value` as an error message repeats it: cut, because what came may be a megabyte."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
