"""RenderX's `UNetGenerator`: a U-Net of plain convolutions that halves by pooling.

One block is Conv(4 x 4, stride 1, padding 1), batch normalisation, ReLU, so it takes one pixel off each side's length.
Sides for 256 pixels in, four stages:

    encoder   256 -> 255 | pool 127 -> 126 | pool 63 -> 62 | pool 31 -> 30 | pool 15 -> bottleneck 14
    decoder   14 -> 29, resized to 30 -> 29 | 59, to 62 -> 61 | 123, to 126 -> 125 | 251, to 255 -> 254

Each transposed convolution (4 x 4, stride 2, padding 1, output padding 1) gives 2 n + 1, is resized bilinearly to the
skip's size and concatenated before it. 256 in gives 254 out.

A pooling layer has no weights, so a checkpoint can't say which one it was; 2 x 2 max-pooling is what the four
doublings of the decoder and the usual U-Net call for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sketchbridge_export.families.family import (
    TANH_CONVENTION,
    Choices,
    Family,
    Generator,
    NormMode,
    Recognition,
    Shapes,
    State,
    Weights,
)
from sketchbridge_export.families.layers import (
    NormalisedConvolution,
    StructureMismatch,
    build_norm,
    choose_activation,
    choose_fixed_size,
    convolution_tensor_names,
    convolution_weights,
    norm_keys,
    norm_tensor_names,
    refuse_dropout,
    require_nothing_else,
    require_shape,
    require_torch,
)

_NATIVE_SIZE = 256
_MOST_STAGES = 6  # they leave 3 pixels of 256 to the bottleneck, whose kernel is 4 wide and padded by 2
_DEFAULT_NORM: NormMode = "running"
_BATCH_NORM_KEYS = frozenset(("weight", "bias", "running_mean", "running_var"))


@dataclass(frozen=True)
class _Structure:
    input_channels: int
    output_channels: int
    widths: tuple[int, ...]
    bottleneck_width: int
    last: str


class PoolingUNet(nn.Module):
    """(N, C, H, W) in [-1, 1] -> (N, C', H - 2, W - 2) in [-1, 1]; H and W at least 46 with four stages."""

    def __init__(
        self,
        encoder: Sequence[NormalisedConvolution],
        bottleneck: NormalisedConvolution,
        decoder: Sequence[tuple[nn.ConvTranspose2d, NormalisedConvolution]],
        last: nn.Conv2d,
    ) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(encoder)
        self.bottleneck = bottleneck
        self.enlarge = nn.ModuleList(enlarge for enlarge, _ in decoder)
        self.decoder = nn.ModuleList(block for _, block in decoder)
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        skips: list[torch.Tensor] = []
        for block in self.encoder:
            skips.append(functional.relu(block(x)))
            x = functional.max_pool2d(skips[-1], 2)
        x = functional.relu(self.bottleneck(x))
        for enlarge, block in zip(self.enlarge, self.decoder, strict=True):
            skip = skips.pop()
            x = functional.interpolate(enlarge(x), size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = functional.relu(block(torch.cat([x, skip], dim=1)))  # the skip comes last
        return torch.tanh(self.last(x))


def recognise(weights: Weights) -> Recognition:
    """Whether names and shapes are such a U-Net's, every one of them."""
    try:
        require_torch(weights)
        found = _read_structure(weights.shapes)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    return Recognition(matches=True, why=f"U-Net of {len(found.widths)} pooled stages, widths {list(found.widths)}")


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    found = _read_structure(weights.shapes)
    state = weights.tensors
    mode = choices.norm or _DEFAULT_NORM
    refuse_dropout(choices)
    choose_activation(choices, "tanh")
    stages = len(found.widths)
    decoder = []
    for index in range(stages):
        own = convolution_weights(state, f"decoder.{2 * index}")
        shape = own["weight"].shape
        enlarge = nn.ConvTranspose2d(shape[0], shape[1], 4, stride=2, padding=1, output_padding=1, bias="bias" in own)
        enlarge.load_state_dict(own)
        decoder.append((enlarge, _block(state, f"decoder.{2 * index + 1}", mode)))
    own = convolution_weights(state, found.last)
    last = nn.Conv2d(found.widths[0], found.output_channels, 1, bias="bias" in own)
    last.load_state_dict(own)
    module = PoolingUNet(
        [_block(state, f"encoder.{index}", mode) for index in range(stages)],
        _block(state, "bottleneck", mode),
        decoder,
        last,
    )
    return Generator(
        module=module.eval().requires_grad_(requires_grad=False),
        input_channels=found.input_channels,
        output_channels=found.output_channels,
        native_size=choose_fixed_size(choices, _NATIVE_SIZE),
        norm=mode,
        facts={"stages": stages, "widths": list(found.widths), "bottleneck_width": found.bottleneck_width},
    )


def _block(state: State, prefix: str, mode: NormMode) -> NormalisedConvolution:
    weights = convolution_weights(state, f"{prefix}.0")
    shape = weights["weight"].shape
    convolution = nn.Conv2d(shape[1], shape[0], 4, padding=1, bias="bias" in weights)
    convolution.load_state_dict(weights)
    return NormalisedConvolution(convolution, build_norm(state, f"{prefix}.1", shape[0], mode))


def _read_structure(shapes: Shapes) -> _Structure:
    explained: set[str] = set()

    def block(prefix: str, expected: dict[int, int]) -> tuple[int, ...]:
        shape = require_shape(shapes, f"{prefix}.0.weight", expected | {2: 4, 3: 4})
        if norm_keys(shapes, f"{prefix}.1") != _BATCH_NORM_KEYS:
            raise StructureMismatch(f"`{prefix}.1` is not a batch normalisation with running statistics")
        explained.update(norm_tensor_names(shapes, f"{prefix}.1", shape[0]))
        explained.update(convolution_tensor_names(shapes, f"{prefix}.0", shape[0]))
        return shape

    widths: list[int] = []
    while not widths or f"encoder.{len(widths)}.0.weight" in shapes:
        widths.append(block(f"encoder.{len(widths)}", {1: widths[-1]} if widths else {})[0])
    if len(widths) > _MOST_STAGES:
        raise StructureMismatch(f"it has {len(widths)} pooled stages; {_NATIVE_SIZE} pixels allow {_MOST_STAGES}")
    bottleneck_width = block("bottleneck", {1: widths[-1]})[0]
    before = bottleneck_width
    for index, width in enumerate(reversed(widths)):
        require_shape(shapes, f"decoder.{2 * index}.weight", {0: before, 1: width, 2: 4, 3: 4})
        explained |= convolution_tensor_names(shapes, f"decoder.{2 * index}", width)
        block(f"decoder.{2 * index + 1}", {0: width, 1: 2 * width})
        before = width
    last = "final_layer" if "final_layer.weight" in shapes else "final_layer.0"
    output_channels = require_shape(shapes, f"{last}.weight", {1: widths[0], 2: 1, 3: 1})[0]
    explained |= convolution_tensor_names(shapes, last, output_channels)
    require_nothing_else(shapes, explained)
    input_channels = shapes["encoder.0.0.weight"][1]
    return _Structure(input_channels, output_channels, tuple(widths), bottleneck_width, last)


FAMILY = Family(
    name="renderx_unet",
    title="RenderX, a U-Net that halves by pooling",
    recognised_by="`encoder.N.{0,1}`, `bottleneck.{0,1}`, `decoder.N`, `final_layer`",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="running",
    dropout="none",
    native_size="256; it paints 254 x 254",
    exact="stages (1 to 6), widths, channels, biases",
    assumed="2 x 2 max-pooling, values in [-1, 1], dark lines in RGB",
    source="RenderX, UNetGenerator",
)
