"""Pure functions on uint8 pictures: decode, fit, denoise, sketch, normalise, encode.

Everything takes and returns (H, W) or (H, W, 3) RGB uint8 arrays in [0, 255] and touches no file, flag or global.
"""

from sketchbridge_preprocess.checks import Image, check_image
from sketchbridge_preprocess.decode import DEFAULT_LIMITS, Limits, decode
from sketchbridge_preprocess.encode import OUTPUT_FORMATS, encode
from sketchbridge_preprocess.errors import (
    ImageTooLarge,
    InvalidImage,
    InvalidOption,
    PreprocessError,
    TruncatedImage,
    UnsupportedFormat,
)
from sketchbridge_preprocess.filters import THRESHOLD_METHODS, denoise, sharpen, threshold, to_gray
from sketchbridge_preprocess.fit import FIT_MODES, Fitted, Placement, Size, fit, place, unfit
from sketchbridge_preprocess.header import ImageHeader, read_header
from sketchbridge_preprocess.normalise import POLARITIES, draw_strokes, find_strokes, normalise_sketch
from sketchbridge_preprocess.options import NORMALISE_MODES, OUTPUT_ENCODINGS, RequestOptions, read_options
from sketchbridge_preprocess.pipeline import (
    INTERFACE_SIDE_PX,
    draw_photo,
    image_for_model,
    lines_for_model,
    sketch_for_model,
    to_wire,
)
from sketchbridge_preprocess.sketch import (
    SKETCH_METHODS,
    Parameter,
    SketchMethod,
    canny,
    dodge,
    laplacian,
    sketch,
    xdog,
)

__all__ = [
    "DEFAULT_LIMITS",
    "FIT_MODES",
    "INTERFACE_SIDE_PX",
    "NORMALISE_MODES",
    "OUTPUT_ENCODINGS",
    "OUTPUT_FORMATS",
    "POLARITIES",
    "SKETCH_METHODS",
    "THRESHOLD_METHODS",
    "Fitted",
    "Image",
    "ImageHeader",
    "ImageTooLarge",
    "InvalidImage",
    "InvalidOption",
    "Limits",
    "Parameter",
    "Placement",
    "PreprocessError",
    "RequestOptions",
    "Size",
    "SketchMethod",
    "TruncatedImage",
    "UnsupportedFormat",
    "canny",
    "check_image",
    "decode",
    "denoise",
    "dodge",
    "draw_photo",
    "draw_strokes",
    "encode",
    "find_strokes",
    "fit",
    "image_for_model",
    "laplacian",
    "lines_for_model",
    "normalise_sketch",
    "place",
    "read_header",
    "read_options",
    "sharpen",
    "sketch",
    "sketch_for_model",
    "threshold",
    "to_gray",
    "to_wire",
    "unfit",
    "xdog",
]
