"""U-Nets of segmentation_models_pytorch (`smp.Unet`) with a ResNet encoder.

Encoder, depth, decoder widths, normalisation and attention are read from names and shapes. What has no weights is
taken as the library's default: upsampling to the nearest neighbour, which all releases since 0.1 do; since 0.5 they can
be told otherwise.

The library ends a network without an activation and leaves it to the loss. Code that trains it to paint puts a tanh
there, as pix2pix does, and feeds [-1, 1]; that is the default here. Encoders come pretrained and are trained in larger
batches and used in evaluation mode, so the statistics are the running ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sketchbridge_export.families.family import (
    TANH_CONVENTION,
    TANH_RANGE,
    UNIT_RANGE,
    Activation,
    Choices,
    Convention,
    Family,
    Generator,
    NormMode,
    Recognition,
    Shapes,
    State,
    Weights,
)
from sketchbridge_export.families.layers import (
    StructureMismatch,
    choose_free_size,
    convolution_tensor_names,
    convolution_weights,
    norm_keys,
    norm_tensor_names,
    refuse_dropout,
    require_nothing_else,
    require_shape,
    require_torch,
)
from sketchbridge_export.families.resnet_encoder import (
    BATCH_NORM_KEYS,
    DEEPEST,
    EncoderNames,
    EncoderStructure,
    ResNetEncoder,
    build_encoder,
    build_normalised,
    read_encoder,
    require_filled,
    smallest_side,
)

_DEFAULT_NORM: NormMode = "running"
_DEFAULT_ACTIVATION: Activation = "tanh"
_ENCODER_NAMES = EncoderNames(
    "encoder.conv1", "encoder.bn1", ("encoder.layer1", "encoder.layer2", "encoder.layer3", "encoder.layer4")
)
_HEAD = "segmentation_head.0"
# Beginnings of names that give away the library's other networks, the telling ones first.
_OTHERS = {
    "decoder.blocks.x_": "UnetPlusPlus",
    "decoder.blocks.0.hl_conv.": "MAnet",
    "decoder.blocks.0.block.": "Linknet",
    "decoder.p5.": "FPN",
    "decoder.fpn_": "UPerNet",
    "decoder.psp.": "PSPNet",
    "decoder.fpa.": "PAN",
    "decoder.aspp.0.": "DeepLabV3Plus",
    "decoder.aspp.": "DeepLabV3",
    "decoder.mlp_stage.": "Segformer",
    "decoder.layer1.": "a Unet of a release before 0.1",
}


@dataclass(frozen=True)
class _Structure:
    """widths: of the decoder, the deepest first. norm: of the decoder: "batch", "instance, affine" or "none"."""

    encoder: EncoderStructure
    widths: tuple[int, ...]
    norm: str
    attention: bool
    output_channels: int


class SqueezeExcitation(nn.Module):
    """What the library calls scse: the picture weighted by channel plus the picture weighted by place."""

    def __init__(self, squeeze: nn.Module, excite: nn.Module, place: nn.Module) -> None:
        super().__init__()
        self.squeeze = squeeze
        self.excite = excite
        self.place = place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> the same shape."""
        channels = torch.sigmoid(self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        places = torch.sigmoid(self.place(x))  # (N, 1, H, W)
        return x * channels + x * places


class DecoderBlock(nn.Module):
    """Doubles the picture, joins the encoder's of that size, and convolves twice."""

    def __init__(self, convolutions: Sequence[nn.Module], attention: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.joined_attention, self.attention = attention

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        """x: (N, C, H, W). skip: (N, S, 2 H, 2 W) or None. Returns (N, C', 2 H, 2 W)."""
        x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
        if skip is not None:
            x = self.joined_attention(torch.cat([x, skip], dim=1))
        for convolution in self.convolutions:
            x = functional.relu(convolution(x))
        attended: torch.Tensor = self.attention(x)
        return attended


class ResNetUNet(nn.Module):
    """(N, C, S, S) -> (N, C', S, S), S being a multiple of 2 ** depth and depth the number of decoder blocks."""

    def __init__(
        self, encoder: ResNetEncoder, blocks: Sequence[DecoderBlock], head: nn.Module, activation: Activation
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        features = self.encoder(x)
        x = features.pop()
        for block in self.blocks:
            x = block(x, features.pop() if features else None)  # the outermost block joins nothing
        x = self.head(x)
        if self.activation == "tanh":
            return torch.tanh(x)
        return torch.sigmoid(x) if self.activation == "sigmoid" else x


def recognise(weights: Weights) -> Recognition:
    """Whether names and shapes are such a U-Net's, every one of them."""
    try:
        require_torch(weights)
        found = _read_structure(weights.shapes)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    attention = ", scse attention" if found.attention else ""
    return Recognition(
        matches=True,
        why=f"U-Net with a {found.encoder.title} encoder, decoder widths {list(found.widths)}, "
        f"decoder norm {found.norm}{attention}",
    )


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    found = _read_structure(weights.shapes)
    state = weights.tensors
    mode = choices.norm or _DEFAULT_NORM
    activation = choices.activation or _DEFAULT_ACTIVATION
    refuse_dropout(choices)
    depth = len(found.widths)
    native_size = choose_free_size(choices, multiple=2**depth, smallest=smallest_side(depth, mode))
    blocks = []
    for index in range(depth):
        name = f"decoder.blocks.{index}"
        convolutions = []
        for step in ("conv1", "conv2"):
            norm = None if found.norm == "none" else f"{name}.{step}.1"
            convolutions.append(build_normalised(state, f"{name}.{step}.0", norm, mode))
        attention = tuple(_attention(state, f"{name}.attention{step}.attention", found) for step in (1, 2))
        blocks.append(DecoderBlock(convolutions, (attention[0], attention[1])))
    encoder = build_encoder(state, found.encoder, mode, stages=depth - 1)
    head = build_normalised(state, _HEAD, None, mode)
    output_range = UNIT_RANGE if activation == "sigmoid" else TANH_RANGE
    return Generator(
        module=ResNetUNet(encoder, blocks, head, activation).eval().requires_grad_(requires_grad=False),
        input_channels=found.encoder.input_channels,
        output_channels=found.output_channels,
        native_size=native_size,
        norm=mode,
        facts={
            "encoder": found.encoder.title,
            "depth": depth,
            "decoder_widths": list(found.widths),
            "decoder_norm": found.norm,
            "attention": "scse" if found.attention else "none",
            "activation": activation,
        },
        convention=Convention(TANH_RANGE, output_range),
    )


def _attention(state: State, name: str, found: _Structure) -> nn.Module:
    if not found.attention:
        return nn.Identity()
    parts = []
    for step in ("cSE.1", "cSE.3", "sSE.0"):
        own = convolution_weights(state, f"{name}.{step}")
        convolution = nn.Conv2d(own["weight"].shape[1], own["weight"].shape[0], 1)
        convolution.load_state_dict(own)
        parts.append(convolution)
    return SqueezeExcitation(*parts)


def _read_structure(shapes: Shapes) -> _Structure:
    _refuse_others(shapes)
    require_filled(shapes)
    encoder, explained = read_encoder(shapes, _ENCODER_NAMES)
    depth = 0
    while depth == 0 or f"decoder.blocks.{depth}.conv1.0.weight" in shapes:
        depth += 1
        if depth > DEEPEST:
            raise StructureMismatch(f"its decoder doubles more than {DEEPEST} times, as often as the encoder halves")
    attention = "decoder.blocks.0.attention1.attention.sSE.0.weight" in shapes
    skips = [*encoder.widths[: depth - 1][::-1], 0]
    below = encoder.widths[depth - 1]
    widths: list[int] = []
    norms: set[str] = set()
    for index, skip in enumerate(skips):
        name = f"decoder.blocks.{index}"
        width = require_shape(shapes, f"{name}.conv1.0.weight", {1: below + skip, 2: 3, 3: 3})[0]
        require_shape(shapes, f"{name}.conv2.0.weight", {0: width, 1: width, 2: 3, 3: 3})
        for step in ("conv1", "conv2"):
            explained |= convolution_tensor_names(shapes, f"{name}.{step}.0", width)
            explained |= norm_tensor_names(shapes, f"{name}.{step}.1", width)
            norms.add(_norm_kind(shapes, f"{name}.{step}"))
        if attention:
            explained |= _attention_names(shapes, f"{name}.attention1.attention", below + skip)
            explained |= _attention_names(shapes, f"{name}.attention2.attention", width)
        widths.append(width)
        below = width
    if len(norms) > 1:
        raise StructureMismatch(f"the normalisations of its decoder differ: {sorted(norms)}")
    head = require_shape(shapes, f"{_HEAD}.weight", {1: below, 2: 3, 3: 3})
    require_shape(shapes, f"{_HEAD}.bias", {0: head[0]}, dimensions=1)
    explained |= {f"{_HEAD}.weight", f"{_HEAD}.bias"}
    require_nothing_else(shapes, explained)
    return _Structure(encoder, tuple(widths), next(iter(norms)), attention, head[0])


def _refuse_others(shapes: Shapes) -> None:
    """Name the library's networks that are not this family's."""
    if not any(key.startswith("encoder.") for key in shapes) or f"{_HEAD}.weight" not in shapes:
        raise StructureMismatch(f"`{_HEAD}.weight` beside an `encoder.` is missing")
    for beginning, network in _OTHERS.items():
        if any(key.startswith(beginning) for key in shapes):
            raise StructureMismatch(
                f"it looks like segmentation_models_pytorch's {network}; of its networks only Unet is taken. "
                "Export that one to ONNX with its own code"
            )
    if f"{_ENCODER_NAMES.stem}.weight" not in shapes:
        raise StructureMismatch(
            "it looks like segmentation_models_pytorch's, but its encoder isn't one of torchvision's ResNets: "
            f"`{_ENCODER_NAMES.stem}.weight` is missing"
        )


def _norm_kind(shapes: Shapes, name: str) -> str:
    """The library gives a convolution a bias exactly where no normalisation follows."""
    stored = norm_keys(shapes, f"{name}.1")
    if f"{name}.0.bias" in shapes:
        if stored:
            raise StructureMismatch(f"`{name}` has a bias as well as a normalisation")
        return "none"
    if stored == BATCH_NORM_KEYS:
        counter = "num_batches_tracked"
        if f"{name}.1.{counter}" not in shapes and f"{_ENCODER_NAMES.stem_norm}.{counter}" in shapes:
            raise StructureMismatch(
                f"`{name}.1` counts no batches though the encoder's normalisations do: it looks like InPlaceABN, whose "
                "arithmetic is another"
            )
        return "batch"
    if stored == {"weight", "bias"}:
        return "instance, affine"
    if not stored:
        raise StructureMismatch(f"`{name}` has neither a bias nor a normalisation")
    raise StructureMismatch(f"`{name}.1` holds {sorted(stored)}, which no kind of normalisation does")


def _attention_names(shapes: Shapes, name: str, channels: int) -> set[str]:
    inner = require_shape(shapes, f"{name}.cSE.1.weight", {1: channels, 2: 1, 3: 1})[0]
    require_shape(shapes, f"{name}.cSE.3.weight", {0: channels, 1: inner, 2: 1, 3: 1})
    require_shape(shapes, f"{name}.sSE.0.weight", {0: 1, 1: channels, 2: 1, 3: 1})
    names: set[str] = set()
    for step, outputs in (("cSE.1", inner), ("cSE.3", channels), ("sSE.0", 1)):
        require_shape(shapes, f"{name}.{step}.bias", {0: outputs}, dimensions=1)
        names |= {f"{name}.{step}.weight", f"{name}.{step}.bias"}
    return names


FAMILY = Family(
    name="smp_unet",
    title="segmentation_models_pytorch, Unet with a ResNet encoder",
    recognised_by="`encoder.layer1.0.conv1.weight`, `decoder.blocks.0.conv1.0.weight` and `segmentation_head.0.weight`",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="running: pretrained encoders are trained in larger batches and used in evaluation mode",
    dropout="none",
    native_size="256, or --size: a multiple of 2 ** depth, 32 for the usual depth of 5",
    exact="encoder (any ResNet, Wide ResNet or ResNeXt of torchvision's), depth, decoder widths, channels, "
    "normalisation of the decoder, scse attention",
    assumed="dark lines in RGB; values in [-1, 1] on both sides, where a pretrained encoder may have been fed "
    "ImageNet's statistics; a tanh at the end, which the library leaves to the training code; upsampling "
    "to the nearest neighbour",
    source="https://github.com/qubvel-org/segmentation_models.pytorch decoders/unet and encoders/resnet.py, 0.1 to 0.6",
)
