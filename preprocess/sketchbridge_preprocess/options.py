"""The options of a request: one table that says what each is called, what it may be, and what it is when left out.

All steps of an ensemble see all parameters of the request, so one reader serves every step: it checks the names against
the whole table, and each step takes the fields it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from sketchbridge_preprocess.checks import check_choice, check_range, check_whole, shown
from sketchbridge_preprocess.encode import OUTPUT_FORMATS
from sketchbridge_preprocess.errors import InvalidOption
from sketchbridge_preprocess.fit import FIT_MODES
from sketchbridge_preprocess.sketch import SKETCH_METHODS

NORMALISE_MODES = ("auto", "off")
OUTPUT_ENCODINGS = ("raw", "base64")
LONGEST_SKETCH_SIDE_PX = 4096


@dataclass(frozen=True)
class RequestOptions:
    """What a caller may ask for beside the picture.

    fit: how a picture gets to the model's size: letterbox, crop or stretch.
    normalise: "auto" redraws the caller's lines as the generator knows them, "off" only fits the picture.
    method, method_parameters: how a photo is drawn, see `SKETCH_METHODS`.
    max_side_px: a photo is scaled down to this before it is drawn, 16 to 4,096; thresholds and line widths are in
    pixels, so a drawing looks the same whatever the camera's resolution.
    output_format, quality: see `encode`.
    output_encoding: "base64" gives text, for callers that speak JSON only.
    """

    fit: str = "letterbox"
    normalise: str = "auto"
    method: str = "canny"
    method_parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    max_side_px: int = 1024
    output_format: str = "png"
    quality: int = 90
    output_encoding: str = "raw"


_CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fit": FIT_MODES,
        "normalise": NORMALISE_MODES,
        "method": tuple(SKETCH_METHODS),
        "output_format": OUTPUT_FORMATS,
        "output_encoding": OUTPUT_ENCODINGS,
    }
)
_WHOLE_NUMBERS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "quality": (1, 100),
        "max_side_px": (16, LONGEST_SKETCH_SIDE_PX),
    }
)
_METHOD_PARAMETERS = frozenset(name for method in SKETCH_METHODS.values() for name in method.parameters)


def read_options(parameters: Mapping[str, object]) -> RequestOptions:
    """Read the parameters of a request.

    parameters: names and values as they came over the wire: strings, whole numbers, numbers and booleans.
    Raises InvalidOption, naming the option, for an unknown name, a wrong type or a value outside its range.
    """
    fields: dict[str, object] = {}
    numbers: dict[str, float] = {}
    for name, value in parameters.items():
        if name in _CHOICES:
            check_choice(name, value, _CHOICES[name])
            fields[name] = value
        elif name in _WHOLE_NUMBERS:
            fields[name] = check_whole(name, value, *_WHOLE_NUMBERS[name])
        elif name in _METHOD_PARAMETERS:
            numbers[name] = _number(name, value)
        else:
            known = ", ".join([*_CHOICES, *_WHOLE_NUMBERS])
            raise InvalidOption(
                f"There is no option `{name:.80}`. There are {known}, and the parameters of the methods."
            )
    options = RequestOptions(**fields, method_parameters=MappingProxyType(numbers))  # type: ignore[arg-type]
    _check_method_parameters(options)
    return options


def _check_method_parameters(options: RequestOptions) -> None:
    wanted = SKETCH_METHODS[options.method].parameters
    for name, value in options.method_parameters.items():
        if name not in wanted:
            raise InvalidOption(f"`{options.method}` has no parameter `{name}`; it has {', '.join(wanted)}.")
        check_range(name, value, wanted[name].minimum, wanted[name].maximum)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidOption(f"`{name}` is {shown(value)}; expected a number.")
    try:
        return float(value)
    except OverflowError as exc:
        raise InvalidOption(f"`{name}` is {shown(value)}; expected a number of ordinary size.") from exc
