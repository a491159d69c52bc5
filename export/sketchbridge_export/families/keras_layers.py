"""What each Keras layer computes, in torch: one planner a layer type, all in PLANNERS.

A planner looks at a layer's settings, the shapes it is fed and the shapes of its weights, checks that they fit, and
says which shape comes out and how to build it. Nothing is allocated before the whole network has been planned. Keras
works on (N, H, W, C) with kernels (h, w, in, out), torch on (N, C, H, W) with kernels (out, in, h, w); shapes here are
(C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from sketchbridge_export.families.family import NormMode, Shapes
from sketchbridge_export.families.keras_graph import Layer
from sketchbridge_export.families.layers import FixedDropout, NormalisedConvolution, StructureMismatch

Shape = tuple[int, int, int]  # (C, H, W)
Tensors = Mapping[str, torch.Tensor]

_MOST_VALUES = 2**26  # of one feature map: 64 channels of 1024 x 1024, 256 MiB


@dataclass(frozen=True)
class How:
    """What the builder is told beyond the weights: the statistics of batch normalisation, and the dropout's mask."""

    norm: NormMode
    dropout_seed: int | None
    place: int


@dataclass(frozen=True)
class Plan:
    """shape: of the result. build: weights (Keras's layout) -> module. activation: the last thing it does, if known."""

    shape: Shape
    build: Callable[[Tensors, How], nn.Module] = field(repr=False)
    activation: str = "linear"


@dataclass(frozen=True)
class Given:
    """What a planner decides on: the layer, the shapes that it is fed, and those of its weights, by variable."""

    layer: Layer
    inputs: Sequence[Shape]
    weights: Shapes

    @property
    def config(self) -> Mapping[str, Any]:
        """The layer's settings."""
        return self.layer.config

    @property
    def one(self) -> Shape:
        """The shape it is fed, for layers that take one value."""
        if len(self.inputs) != 1:
            raise self.mismatch(f"is fed {len(self.inputs)} values")
        return self.inputs[0]

    def mismatch(self, what: str) -> StructureMismatch:
        """The error to raise, with the layer's name and type."""
        return StructureMismatch(f"layer `{self.layer.path}` ({self.layer.class_name}) {what}")

    def integer(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A setting between `low` and `high`."""
        value = self.config.get(key, default)
        if type(value) is not int or not low <= value <= high:
            raise self.mismatch(f"has {key} {str(value)[:60]}, expected {low} to {high}")
        return value

    def number(self, key: str, default: float) -> float:
        """A finite setting."""
        value = self.config.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.mismatch(f"has {key} {str(value)[:60]}, expected a number")
        return float(value)

    def pair(self, key: str, low: int, high: int, default: int | None = None) -> tuple[int, int]:
        """A setting for height and width: one number or two."""
        value = self.config.get(key, default)
        both = [value, value] if isinstance(value, int) else value
        if not isinstance(both, list | tuple) or len(both) != 2:
            raise self.mismatch(f"has {key} {str(value)[:60]}, expected two numbers")
        if any(type(size) is not int or not low <= size <= high for size in both):
            raise self.mismatch(f"has {key} {str(value)[:60]}, expected {low} to {high}")
        return both[0], both[1]

    def require(self, variable: str, shape: tuple[int, ...]) -> None:
        """Raise StructureMismatch unless the weight has this shape."""
        if self.weights[variable] != shape:
            raise self.mismatch(f"has a {variable} of shape {self.weights[variable]}, expected {shape}")

    def require_channels_last(self) -> None:
        """Raise StructureMismatch if it works on (N, C, H, W)."""
        if self.config.get("data_format") not in (None, "channels_last"):
            raise self.mismatch("works with channels first. Save a model that has channels last, Keras's default")

    def axis_is_channels(self) -> bool:
        """Whether its `axis` is the channels'."""
        axis = self.config.get("axis", -1)
        return axis in (-1, 3, [-1], [3])


class Chain(nn.Sequential):
    """Several modules that stand for one layer; the one that a normalisation can be folded into is `convolution`."""

    def __init__(self, before: Sequence[nn.Module], convolution: nn.Module, after: Sequence[nn.Module]) -> None:
        super().__init__(*before, convolution, *after)
        self.place = len(before)

    @property
    def can_normalise(self) -> bool:
        """Whether nothing stands behind the convolution that a normalisation can't be put before."""
        behind = list(self)[self.place + 1 :]
        plain = isinstance(self[self.place], nn.Conv2d | nn.ConvTranspose2d)
        return plain and all(isinstance(part, Crop) for part in behind)

    def normalise(self, norm: nn.Module) -> None:
        """Put a normalisation behind the convolution; what follows it only crops."""
        convolution = self[self.place]
        if not isinstance(convolution, nn.Conv2d | nn.ConvTranspose2d):
            raise TypeError("only a convolution can be normalised, and only once")
        self[self.place] = NormalisedConvolution(convolution, norm)


class Crop(nn.Module):
    """Cuts (N, C, H, W) to `rows` and `columns`, each (first, behind the last)."""

    def __init__(self, rows: tuple[int, int], columns: tuple[int, int]) -> None:
        super().__init__()
        self.rows, self.columns = rows, columns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        return x[:, :, self.rows[0] : self.rows[1], self.columns[0] : self.columns[1]]


class Calculation(nn.Module):
    """A function without weights."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: torch.Tensor) -> torch.Tensor:
        """The function of its inputs."""
        return self.function(*x)


class FlatNorm(nn.Module):
    """Normalisation of a 1 x 1 feature map by its own statistics: the mean is the value, so only the shift is left."""

    shift: torch.Tensor

    def __init__(self, shift: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", shift.reshape(1, -1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1) -> the same shape."""
        return x * 0.0 + self.shift


class PixelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, as Keras does by default."""

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.scale, self.shift, self.eps = nn.Parameter(scale), nn.Parameter(shift), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> the same shape."""
        x = functional.layer_norm(x.permute(0, 2, 3, 1), self.scale.shape, self.scale, self.shift, self.eps)
        return x.permute(0, 3, 1, 2)


class LearntSlope(nn.Module):
    """PReLU with a slope a channel or a pixel. slope: (C or 1, H or 1, W or 1)."""

    def __init__(self, slope: torch.Tensor) -> None:
        super().__init__()
        self.slope = nn.Parameter(slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> the same shape."""
        return functional.relu(x) - self.slope * functional.relu(-x)


# Activations by the name that `activation=` and Activation(...) store. leaky_relu's default slope is 0.2 there, though
# the LeakyReLU layer's is 0.3.
_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
    "selu": nn.SELU,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "swish": nn.SiLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "relu6": nn.ReLU6,
}


def _activation(given: Given) -> tuple[str, Sequence[Callable[[], nn.Module]]]:
    """Its name and how to build it: nothing for a linear one."""
    said = given.config.get("activation", "linear")
    if isinstance(said, Mapping):
        said = said.get("config") if said.get("class_name") == "function" else said.get("class_name", "nothing known")
    if said is None or said == "linear":
        return "linear", ()
    if isinstance(said, str) and said in _ACTIVATIONS:
        return said, (_ACTIVATIONS[said],)
    if said in ("softmax", "log_softmax"):
        raise given.mismatch(
            "gives class probabilities (softmax): it looks like a segmentation network or a classifier"
        )
    raise given.mismatch(f"has the activation {str(said)[:60]!r}, which is not known here")


def _plan_activation(given: Given) -> Plan:
    name, make = _activation(given)
    return Plan(given.one, lambda *_: make[0]() if make else nn.Identity(), name)


def _plan_relu(given: Given) -> Plan:
    slope = given.number("negative_slope", 0.0)
    top = given.config.get("max_value")
    if given.number("threshold", 0.0) != 0:
        raise given.mismatch("has a threshold other than 0")
    if top is None:
        return Plan(given.one, lambda *_: nn.LeakyReLU(slope) if slope else nn.ReLU(), "relu")
    limit = given.number("max_value", 0.0)
    return Plan(
        given.one,
        lambda *_: Calculation(lambda x: torch.clamp(functional.leaky_relu(x, slope), max=limit)),
        "relu",
    )


def _plan_leaky_relu(given: Given) -> Plan:
    slope = given.number("negative_slope" if "negative_slope" in given.config else "alpha", 0.3)
    return Plan(given.one, lambda *_: nn.LeakyReLU(slope), "leaky_relu")


def _plan_elu(given: Given) -> Plan:
    alpha = given.number("alpha", 1.0)
    return Plan(given.one, lambda *_: nn.ELU(alpha), "elu")


def _plan_prelu(given: Given) -> Plan:
    channels, height, width = given.one
    shape = given.weights["alpha"]
    if len(shape) != 3 or any(
        found not in (1, full) for found, full in zip(shape, (height, width, channels), strict=True)
    ):
        raise given.mismatch(f"has slopes of shape {shape}, expected one each for a channel or a value")
    return Plan(given.one, lambda tensors, _: LearntSlope(tensors["alpha"].permute(2, 0, 1).contiguous()), "prelu")


def _plan_identity(given: Given) -> Plan:
    return Plan(given.one, lambda *_: nn.Identity())


def _plan_dropout(given: Given) -> Plan:
    """Off, or a mask that is drawn once; SpatialDropout2D drops whole channels."""
    shape = given.one
    rate = given.number("rate", 0.5)
    if not 0 <= rate < 1:
        raise given.mismatch(f"has rate {rate}, expected 0 to 1")
    spatial = given.layer.class_name == "SpatialDropout2D"
    if given.config.get("noise_shape") is not None:
        raise given.mismatch("has a noise_shape")

    def build(_: Tensors, how: How) -> nn.Module:
        if how.dropout_seed is None or rate == 0:
            return nn.Identity()
        masked = (shape[0], 1, 1) if spatial else shape
        return FixedDropout(masked, rate=rate, seed=how.dropout_seed, layer=how.place)

    return Plan(shape, build)


def _same_padding(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int, int]:
    """TensorFlow's "same": (size of the result, padding before, padding behind); the odd one goes behind."""
    result = -(-size // stride)
    total = max((result - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return result, total // 2, total - total // 2


def _window(
    given: Given, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1)
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """The (H, W) that a sliding window leaves, and its padding (top, bottom, left, right)."""
    padding = given.config.get("padding", "valid")
    if padding not in ("same", "valid"):
        raise given.mismatch(f"has padding {str(padding)[:60]!r}, expected 'same' or 'valid'")
    sizes, pads = [], []
    for size, k, s, d in zip(given.one[1:], kernel, stride, dilation, strict=True):
        if padding == "same":
            result, before, behind = _same_padding(size, k, s, d)
        else:
            result, before, behind = (size - (k - 1) * d - 1) // s + 1, 0, 0
        if result < 1:
            raise given.mismatch(f"leaves nothing of {size} pixels")
        sizes.append(result)
        pads += [before, behind]
    return (sizes[0], sizes[1]), (pads[0], pads[1], pads[2], pads[3])


def _plan_conv(given: Given) -> Plan:
    given.require_channels_last()
    kernel = given.pair("kernel_size", 1, 64)
    stride, dilation = given.pair("strides", 1, 16, 1), given.pair("dilation_rate", 1, 64, 1)
    groups = given.integer("groups", 1, 2**16, 1)
    filters = given.integer("filters", 1, 2**16)
    channels = given.one[0]
    if channels % groups or filters % groups:
        raise given.mismatch(f"has {groups} groups for {channels} and {filters} channels")
    given.require("kernel", (*kernel, channels // groups, filters))
    return _planned_conv(
        given,
        (filters, channels, kernel, stride, dilation, groups),
        lambda tensors: tensors["kernel"].permute(3, 2, 0, 1),
    )


def _plan_depthwise(given: Given) -> Plan:
    given.require_channels_last()
    kernel = given.pair("kernel_size", 1, 64)
    stride, dilation = given.pair("strides", 1, 16, 1), given.pair("dilation_rate", 1, 64, 1)
    multiplier = given.integer("depth_multiplier", 1, 256, 1)
    channels = given.one[0]
    given.require("depthwise_kernel", (*kernel, channels, multiplier))
    return _planned_conv(
        given,
        (channels * multiplier, channels, kernel, stride, dilation, channels),
        lambda tensors: _depthwise_kernel(tensors["depthwise_kernel"]),
    )


def _depthwise_kernel(kernel: torch.Tensor) -> torch.Tensor:
    """(h, w, channels, multiplier) -> (channels * multiplier, 1, h, w)."""
    return kernel.permute(2, 3, 0, 1).flatten(0, 1)[:, None]


def _plan_separable(given: Given) -> Plan:
    given.require_channels_last()
    kernel = given.pair("kernel_size", 1, 64)
    stride, dilation = given.pair("strides", 1, 16, 1), given.pair("dilation_rate", 1, 64, 1)
    multiplier = given.integer("depth_multiplier", 1, 256, 1)
    filters = given.integer("filters", 1, 2**16)
    channels = given.one[0]
    between = channels * multiplier
    given.require("depthwise_kernel", (*kernel, channels, multiplier))
    given.require("pointwise_kernel", (1, 1, between, filters))
    _require_bias(given, filters)
    (height, width), pads = _window(given, kernel, stride, dilation)
    name, activation = _activation(given)

    def build(tensors: Tensors, _: How) -> nn.Module:
        spread = nn.Conv2d(channels, between, kernel, stride, 0, dilation, groups=channels, bias=False)
        _load(spread, _depthwise_kernel(tensors["depthwise_kernel"]), None)
        mixed = nn.Conv2d(between, filters, 1, bias="bias" in tensors)
        _load(mixed, tensors["pointwise_kernel"].permute(3, 2, 0, 1), tensors.get("bias"))
        return Chain([*_padded(pads), spread], mixed, [make() for make in activation])

    return Plan((filters, height, width), build, name)


def _require_bias(given: Given, channels: int) -> None:
    if "bias" in given.weights:
        given.require("bias", (channels,))


def _padded(pads: tuple[int, int, int, int], value: float = 0.0) -> list[nn.Module]:
    """pads: (top, bottom, left, right)."""
    return [nn.ConstantPad2d((pads[2], pads[3], pads[0], pads[1]), value)] if any(pads) else []


def _load(convolution: nn.Conv2d | nn.ConvTranspose2d, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    convolution.load_state_dict({"weight": weight.contiguous()} | ({} if bias is None else {"bias": bias}))


def _planned_conv(
    given: Given,
    sizes: tuple[int, int, tuple[int, int], tuple[int, int], tuple[int, int], int],
    kernel_of: Callable[[Tensors], torch.Tensor],
) -> Plan:
    filters, channels, kernel, stride, dilation, groups = sizes
    _require_bias(given, filters)
    (height, width), pads = _window(given, kernel, stride, dilation)
    name, activation = _activation(given)
    even = pads[0] == pads[1] and pads[2] == pads[3]

    def build(tensors: Tensors, _: How) -> nn.Module:
        convolution = nn.Conv2d(
            channels,
            filters,
            kernel,
            stride,
            (pads[0], pads[2]) if even else 0,
            dilation,
            groups,
            bias="bias" in tensors,
        )
        _load(convolution, kernel_of(tensors), tensors.get("bias"))
        return Chain([] if even else _padded(pads), convolution, [make() for make in activation])

    return Plan((filters, height, width), build, name)


def _plan_conv_transpose(given: Given) -> Plan:
    """The gradient of a convolution: TensorFlow's "same" gives size * stride and crops the odd one at the end."""
    given.require_channels_last()
    kernel, stride = given.pair("kernel_size", 1, 64), given.pair("strides", 1, 16, 1)
    if given.pair("dilation_rate", 1, 64, 1) != (1, 1) or given.integer("groups", 1, 2**16, 1) != 1:
        raise given.mismatch("has a dilation or groups")
    if given.config.get("output_padding") is not None:
        raise given.mismatch("has an output_padding")
    padding = given.config.get("padding", "valid")
    if padding not in ("same", "valid"):
        raise given.mismatch(f"has padding {str(padding)[:60]!r}, expected 'same' or 'valid'")
    filters = given.integer("filters", 1, 2**16)
    channels = given.one[0]
    given.require("kernel", (*kernel, filters, channels))
    _require_bias(given, filters)
    over = [max(k - s, 0) for k, s in zip(kernel, stride, strict=True)]
    height, width = (
        size * s + (extra if padding == "valid" else 0)
        for size, s, extra in zip(given.one[1:], stride, over, strict=True)
    )
    before = (over[0] // 2, over[1] // 2) if padding == "same" else (0, 0)
    # Where a kernel is smaller than its stride, nothing but the bias reaches the last rows.
    short = (max(stride[0] - kernel[0], 0), max(stride[1] - kernel[1], 0))
    odd = padding == "same" and any(extra % 2 for extra in over)
    name, activation = _activation(given)

    def build(tensors: Tensors, _: How) -> nn.Module:
        convolution = nn.ConvTranspose2d(channels, filters, kernel, stride, before, short, bias="bias" in tensors)
        _load(convolution, tensors["kernel"].permute(3, 2, 0, 1), tensors.get("bias"))
        cropped = [Crop((0, height), (0, width))] if odd else []
        return Chain([], convolution, [*cropped, *(make() for make in activation)])

    return Plan((filters, height, width), build, name)


def _plan_batch_norm(given: Given) -> Plan:
    shape = given.one
    if not given.axis_is_channels():
        raise given.mismatch(f"normalises along axis {str(given.config.get('axis'))[:60]}, expected the channels'")
    eps = given.number("epsilon", 1e-3)
    for variable in given.weights:
        given.require(variable, (shape[0],))

    def build(tensors: Tensors, how: How) -> nn.Module:
        if how.norm == "instance":
            return _picture_norm(shape, tensors, eps)
        norm = nn.BatchNorm2d(shape[0], eps=eps)
        scale, shift = _scale_and_shift(shape[0], tensors)
        statistics = {"running_mean": tensors["moving_mean"], "running_var": tensors["moving_variance"]}
        norm.load_state_dict({"weight": scale, "bias": shift} | statistics, strict=False)
        return norm.eval()

    return Plan(shape, build)


def _scale_and_shift(channels: int, tensors: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    return tensors.get("gamma", torch.ones(channels)), tensors.get("beta", torch.zeros(channels))


def _picture_norm(shape: Shape, tensors: Tensors, eps: float) -> nn.Module:
    scale, shift = _scale_and_shift(shape[0], tensors)
    if shape[1] * shape[2] == 1:
        return FlatNorm(shift)
    norm = nn.InstanceNorm2d(shape[0], eps=eps, affine=True)
    norm.load_state_dict({"weight": scale, "bias": shift})
    return norm.eval()


def _plan_instance_norm(given: Given) -> Plan:
    shape = given.one
    if not given.axis_is_channels():
        raise given.mismatch("normalises along another axis than the channels'")
    eps = given.number("epsilon", 1e-3)
    for variable in given.weights:
        given.require(variable, (shape[0],))
    return Plan(shape, lambda tensors, _: _picture_norm(shape, tensors, eps))


def _plan_group_norm(given: Given) -> Plan:
    shape = given.one
    groups = given.integer("groups", -1, 2**16, 32)
    groups = shape[0] if groups == -1 else groups  # Keras: -1 makes a group of each channel
    if not given.axis_is_channels() or groups < 1 or shape[0] % groups:
        raise given.mismatch(f"makes {groups} groups of {shape[0]} channels")
    eps = given.number("epsilon", 1e-3)
    for variable in given.weights:
        given.require(variable, (shape[0],))
    if shape[0] // groups * shape[1] * shape[2] == 1:
        return Plan(shape, lambda tensors, _: FlatNorm(_scale_and_shift(shape[0], tensors)[1]))

    def build(tensors: Tensors, _: How) -> nn.Module:
        norm = nn.GroupNorm(groups, shape[0], eps=eps)
        scale, shift = _scale_and_shift(shape[0], tensors)
        norm.load_state_dict({"weight": scale, "bias": shift})
        return norm

    return Plan(shape, build)


def _plan_layer_norm(given: Given) -> Plan:
    shape = given.one
    if not given.axis_is_channels() or given.config.get("rms_scaling"):
        raise given.mismatch("normalises along another axis than the channels', or with rms_scaling")
    eps = given.number("epsilon", 1e-3)
    for variable in given.weights:
        given.require(variable, (shape[0],))
    return Plan(shape, lambda tensors, _: PixelNorm(*_scale_and_shift(shape[0], tensors), eps))


def _plan_pooling(given: Given) -> Plan:
    given.require_channels_last()
    size = given.pair("pool_size", 1, 64, 2)
    stride = size if given.config.get("strides") is None else given.pair("strides", 1, 16)
    (height, width), pads = _window(given, size, stride)
    shape = (given.one[0], height, width)
    if given.layer.class_name == "MaxPooling2D":
        return Plan(shape, lambda *_: nn.Sequential(*_padded(pads, -math.inf), nn.MaxPool2d(size, stride)))
    if any(pads):
        raise given.mismatch(f"does not fit {given.one[1]} x {given.one[2]} pixels")
    return Plan(shape, lambda *_: nn.AvgPool2d(size, stride))


def _plan_upsampling(given: Given) -> Plan:
    given.require_channels_last()
    size = given.pair("size", 1, 16, 2)
    mode = given.config.get("interpolation", "nearest")
    if mode not in ("nearest", "bilinear"):
        raise given.mismatch(f"interpolates {str(mode)[:60]!r}, expected 'nearest' or 'bilinear'")
    shape = (given.one[0], given.one[1] * size[0], given.one[2] * size[1])
    if mode == "nearest":
        return Plan(shape, lambda *_: nn.Upsample(size=shape[1:], mode="nearest"))
    return Plan(shape, lambda *_: nn.Upsample(size=shape[1:], mode="bilinear", align_corners=False))


def _plan_resizing(given: Given) -> Plan:
    given.require_channels_last()
    height, width = given.integer("height", 1, 2**13), given.integer("width", 1, 2**13)
    plain = not any(given.config.get(key) for key in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"))
    if given.config.get("interpolation", "bilinear") != "bilinear" or not plain:
        raise given.mismatch("resizes in another way than bilinearly, without keeping the aspect ratio")
    return Plan(
        (given.one[0], height, width),
        lambda *_: nn.Upsample(size=(height, width), mode="bilinear", align_corners=False),
    )


def _edges(given: Given, key: str) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of `1`, `(1, 2)` or `((1, 1), (2, 2))`."""
    value = given.config.get(key)
    rows_and_columns = [value, value] if isinstance(value, int) else value
    if isinstance(rows_and_columns, list | tuple) and len(rows_and_columns) == 2:
        pairs = [[side, side] if isinstance(side, int) else side for side in rows_and_columns]
        if all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            flat = [size for pair in pairs for size in pair]
            if all(type(size) is int and 0 <= size <= 4096 for size in flat):
                return flat[0], flat[1], flat[2], flat[3]
    raise given.mismatch(f"has {key} {str(value)[:60]}")


def _plan_padding(given: Given) -> Plan:
    given.require_channels_last()
    top, bottom, left, right = _edges(given, "padding")
    channels, height, width = given.one
    return Plan(
        (channels, height + top + bottom, width + left + right),
        lambda *_: nn.Sequential(*_padded((top, bottom, left, right))),
    )


def _plan_cropping(given: Given) -> Plan:
    given.require_channels_last()
    top, bottom, left, right = _edges(given, "cropping")
    channels, height, width = given.one
    if top + bottom >= height or left + right >= width:
        raise given.mismatch(f"leaves nothing of {height} x {width} pixels")
    return Plan(
        (channels, height - top - bottom, width - left - right),
        lambda *_: Crop((top, height - bottom), (left, width - right)),
    )


def _plan_rescaling(given: Given) -> Plan:
    scale, offset = given.number("scale", 1.0), given.number("offset", 0.0)
    return Plan(given.one, lambda *_: Calculation(lambda x: x * scale + offset))


def _plan_concatenate(given: Given) -> Plan:
    if not given.axis_is_channels():
        raise given.mismatch("joins along another axis than the channels'")
    if not given.inputs or len({shape[1:] for shape in given.inputs}) != 1:
        raise given.mismatch(f"joins values of different sizes: {', '.join(str(shape) for shape in given.inputs)}")
    channels = sum(shape[0] for shape in given.inputs)
    return Plan((channels, *given.inputs[0][1:]), lambda *_: Calculation(lambda *x: torch.cat(x, dim=1)))


def _add(*values: torch.Tensor) -> torch.Tensor:
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def _multiply(*values: torch.Tensor) -> torch.Tensor:
    result = values[0]
    for value in values[1:]:
        result = result * value
    return result


def _average(*values: torch.Tensor) -> torch.Tensor:
    return _add(*values) / len(values)


_MERGES: Mapping[str, Callable[..., torch.Tensor]] = {"Add": _add, "Multiply": _multiply, "Average": _average}


def _plan_merge(given: Given) -> Plan:
    if len(given.inputs) < 2:
        raise given.mismatch(f"is fed {len(given.inputs)} values")
    sizes = [{shape[axis] for shape in given.inputs} - {1} for axis in range(3)]
    if any(len(size) > 1 for size in sizes):
        raise given.mismatch(f"joins values of different sizes: {', '.join(str(shape) for shape in given.inputs)}")
    channels, height, width = (next(iter(size), 1) for size in sizes)
    return Plan((channels, height, width), lambda *_: Calculation(_MERGES[given.layer.class_name]))


PLANNERS: Mapping[str, Callable[[Given], Plan]] = {
    "Activation": _plan_activation,
    "ActivityRegularization": _plan_identity,
    "Add": _plan_merge,
    "Addons>InstanceNormalization": _plan_instance_norm,
    "Average": _plan_merge,
    "AveragePooling2D": _plan_pooling,
    "BatchNormalization": _plan_batch_norm,
    "Concatenate": _plan_concatenate,
    "Conv2D": _plan_conv,
    "Conv2DTranspose": _plan_conv_transpose,
    "Cropping2D": _plan_cropping,
    "DepthwiseConv2D": _plan_depthwise,
    "Dropout": _plan_dropout,
    "ELU": _plan_elu,
    "GroupNormalization": _plan_group_norm,
    "Identity": _plan_identity,
    "LayerNormalization": _plan_layer_norm,
    "LeakyReLU": _plan_leaky_relu,
    "MaxPooling2D": _plan_pooling,
    "Multiply": _plan_merge,
    "PReLU": _plan_prelu,
    "ReLU": _plan_relu,
    "Rescaling": _plan_rescaling,
    "Resizing": _plan_resizing,
    "SeparableConv2D": _plan_separable,
    "SpatialDropout2D": _plan_dropout,
    "UpSampling2D": _plan_upsampling,
    "ZeroPadding2D": _plan_padding,
}

_SCORES = (
    "Dense", "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "GlobalAveragePool2D", "GlobalMaxPool2D",
)  # fmt: skip


def plan(given: Given) -> Plan:
    """What a layer gives and how it is built. Raises StructureMismatch, naming the layer and the reason."""
    class_name = given.layer.class_name
    planner = PLANNERS.get(class_name)
    if planner is None:
        raise refusal(given.layer)
    for shape in given.inputs:
        if math.prod(shape) > _MOST_VALUES:
            raise given.mismatch(f"is fed {shape}, more than {_MOST_VALUES:,} values")
    planned = planner(given)
    if math.prod(planned.shape) > _MOST_VALUES:
        raise given.mismatch(f"gives {planned.shape}, more than {_MOST_VALUES:,} values")
    return planned


def refusal(layer: Layer) -> StructureMismatch:
    """Why a layer of a type without a planner is not taken."""
    where = f"layer `{layer.path}` is a {layer.class_name}"
    if "lambda" in layer.class_name.lower():
        return StructureMismatch(
            f"{where}, which runs code that the file brings along; it is not run. Replace it by a layer of Keras"
        )
    if layer.class_name in _SCORES:
        return StructureMismatch(
            f"{where}: it looks like a classifier or a discriminator, which gives scores, no picture"
        )
    return StructureMismatch(f"{where}, which is not known here; known are {', '.join(PLANNERS)}")
