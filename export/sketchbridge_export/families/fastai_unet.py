"""U-Nets of fastai 2 (`unet_learner`, `DynamicUnet`) around one of torchvision's ResNets.

The list of layers is numbered: 0 the encoder, 1 its last normalisation, 3 two convolutions in the middle, 4 to 7 the
blocks that double the picture, 8 the last doubling; then, unless the network was made without `last_cross`, 11 a
residual block on the result and the input side by side, and a 1 x 1 convolution at the end. Which normalisation there
is (none by default), weight or spectral normalisation, and self attention are read from names and shapes.

What leaves no trace in the weights: `blur`, `y_range` and another activation than ReLU. They are taken as the defaults,
except that `--activation sigmoid` is a y_range of (0, 1). fastai 1 is refused: before 1.0.57 it blurred after each
doubling whether asked to or not, so its weights need a fact that nobody remembers.

`unet_learner` feeds pictures of three channels normalised with ImageNet's statistics, and a target that is a picture is
normalised with them too. Other pictures it leaves in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from sketchbridge_export.errors import OptionInvalid
from sketchbridge_export.families.family import (
    IMAGENET_RANGE,
    UNIT_RANGE,
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
    NormalisedConvolution,
    StructureMismatch,
    build_norm,
    choose_free_size,
    convolution_tensor_names,
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
_ENCODER_NAMES = EncoderNames("layers.0.0", "layers.0.1", ("layers.0.4", "layers.0.5", "layers.0.6", "layers.0.7"))
_LAST_NORM = "layers.1"
_MIDDLE = ("layers.3.0", "layers.3.1")
_BLOCKS = ("layers.4", "layers.5", "layers.6", "layers.7")
_LAST_SHUFFLE = "layers.8.0"
_CROSS = ("layers.11.convpath.0", "layers.11.convpath.1")
_HEAD_AFTER_CROSS, _HEAD_ALONE = "layers.12", "layers.10"

# How a weight is stored that is computed from others: the endings of its parts' names, the one of its own shape last.
_WEIGHT_NORM = (("weight_g", "weight_v"), ("parametrizations.weight.original0", "parametrizations.weight.original1"))
_SPECTRAL_NORM = (
    ("weight_u", "weight_v", "weight_orig"),
    ("parametrizations.weight.0._u", "parametrizations.weight.0._v", "parametrizations.weight.original"),
)


@dataclass(frozen=True)
class _Convolution:
    """Names without the trailing `.weight`. relu: whether ReLU is part of it. norm_first: before the ReLU."""

    name: str
    norm: str | None
    relu: bool
    norm_first: bool


@dataclass(frozen=True)
class _Block:
    shuffle: _Convolution
    skip_norm: str
    convolutions: tuple[_Convolution, _Convolution]
    attention: str | None


@dataclass(frozen=True)
class _Structure:
    encoder: EncoderStructure
    middle: tuple[_Convolution, _Convolution]
    blocks: tuple[_Block, ...]
    last_shuffle: _Convolution
    cross: tuple[_Convolution, _Convolution] | None
    head: _Convolution
    widths: tuple[int, ...]
    norm_kind: str
    output_channels: int


class ConvolutionLayer(nn.Module):
    """A convolution with its normalisation, and ReLU before or after that or not at all."""

    def __init__(self, convolution: NormalisedConvolution, *, relu: bool, late_norm: nn.Module | None) -> None:
        super().__init__()
        self.convolution = convolution
        self.relu = relu
        self.late_norm = late_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C', H, W)."""
        x = self.convolution(x)
        if self.relu:
            x = functional.relu(x)
        return x if self.late_norm is None else self.late_norm(x)


class SelfAttention(nn.Module):
    """Every place of the picture looks at every other, as the Self-Attention GAN has it."""

    def __init__(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gamma: torch.Tensor) -> None:
        super().__init__()
        self.query = nn.Parameter(query)  # (Q, C)
        self.key = nn.Parameter(key)  # (Q, C)
        self.value = nn.Parameter(value)  # (C, C)
        self.gamma = nn.Parameter(gamma)  # (1,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> the same shape."""
        places = x.flatten(2)  # (N, C, H W)
        queries, keys, values = (torch.matmul(weight, places) for weight in (self.query, self.key, self.value))
        shares = torch.softmax(torch.matmul(queries.transpose(1, 2), keys), dim=1)  # (N, H W, H W); columns add to 1
        return (self.gamma * torch.matmul(values, shares) + places).reshape(x.shape)


class ShuffleBlock(nn.Module):
    """Doubles the picture by moving channels into places, joins the encoder's picture, and convolves twice."""

    def __init__(
        self, shuffle: nn.Module, skip_norm: nn.Module, convolutions: Sequence[nn.Module], attention: nn.Module
    ) -> None:
        super().__init__()
        self.shuffle = shuffle
        self.skip_norm = skip_norm
        self.convolutions = nn.ModuleList(convolutions)
        self.attention = attention

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """x: (N, C, H, W). skip: (N, S, 2 H or 2 H - 1, ...). Returns (N, C', ...) of the skip's size."""
        x = _fit(functional.pixel_shuffle(self.shuffle(x), 2), skip)
        x = functional.relu(torch.cat([x, self.skip_norm(skip)], dim=1))
        for convolution in self.convolutions:
            x = convolution(x)
        attended: torch.Tensor = self.attention(x)
        return attended


class ShuffleUNet(nn.Module):
    """(N, C, S, S) -> (N, C', S, S) for any S from 32.

    cross: the convolutions of the residual block that sees the network's input again; None if there is none.
    """

    def __init__(
        self,
        encoder: ResNetEncoder,
        middle: nn.Module,
        blocks: Sequence[ShuffleBlock],
        last_shuffle: nn.Module,
        cross: nn.Module | None,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.middle = middle
        self.blocks = nn.ModuleList(blocks)
        self.last_shuffle = last_shuffle
        self.cross = cross
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        sketch = x
        features = self.encoder(x)
        x = self.middle(features.pop())
        for block in self.blocks:
            x = block(x, features.pop())
        x = _fit(functional.pixel_shuffle(self.last_shuffle(x), 2), sketch)
        if self.cross is not None:
            x = torch.cat([x, sketch], dim=1)
            x = functional.relu(self.cross(x) + x)
        result: torch.Tensor = self.head(x)
        return result


def _fit(x: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """`x` in the size of `wanted`, which is smaller by one row or column where the encoder halved an odd number."""
    if x.shape[2:] == wanted.shape[2:]:
        return x
    return functional.interpolate(x, size=wanted.shape[2:], mode="nearest")


def recognise(weights: Weights) -> Recognition:
    """Whether names and shapes are such a U-Net's, every one of them."""
    try:
        require_torch(weights)
        found = _read_structure(_multiplied_shapes(weights.shapes))
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    return Recognition(
        matches=True,
        why=f"DynamicUnet around {found.encoder.title}, decoder widths {list(found.widths)}, norm {found.norm_kind}",
    )


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    found = _read_structure(_multiplied_shapes(weights.shapes))
    state = _multiplied(weights.tensors)
    mode = choices.norm or _DEFAULT_NORM
    refuse_dropout(choices)
    native_size = choose_free_size(choices, multiple=1, smallest=smallest_side(DEEPEST, mode))
    if choices.activation == "tanh":
        raise OptionInvalid(
            "activation is 'tanh', but fastai's networks end in a sigmoid (trained with y_range=(0, 1)) or in nothing. "
            "Choose 'sigmoid' or 'none'."
        )
    layer = _LayerBuilder(state, mode)
    width = found.encoder.widths[-1]
    middle = nn.Sequential(build_norm(state, _LAST_NORM, width, mode), nn.ReLU(), *map(layer, found.middle))
    blocks = [
        ShuffleBlock(
            layer(block.shuffle),
            build_norm(state, block.skip_norm, skip, mode),
            [layer(convolution) for convolution in block.convolutions],
            _attention(state, block.attention),
        )
        for block, skip in zip(found.blocks, found.encoder.widths[-2::-1], strict=True)
    ]
    module: nn.Module = ShuffleUNet(
        build_encoder(state, found.encoder, mode),
        middle,
        blocks,
        layer(found.last_shuffle),
        None if found.cross is None else nn.Sequential(*map(layer, found.cross)),
        layer(found.head),
    )
    if choices.activation == "sigmoid":
        module = nn.Sequential(module, nn.Sigmoid())
    return Generator(
        module=module.eval().requires_grad_(requires_grad=False),
        input_channels=found.encoder.input_channels,
        output_channels=found.output_channels,
        native_size=native_size,
        norm=mode,
        facts={
            "encoder": found.encoder.title,
            "decoder_widths": list(found.widths),
            "decoder_norm": found.norm_kind,
            "self_attention": "no" if all(block.attention is None for block in found.blocks) else "yes",
            "last_cross": "no" if found.cross is None else "yes",
            "activation": choices.activation or "none",
        },
        convention=_convention(found, sigmoid=choices.activation == "sigmoid"),
    )


def _convention(found: _Structure, *, sigmoid: bool) -> Convention:
    normalised = found.encoder.input_channels == 3
    target_normalised = normalised and found.output_channels == 3 and not sigmoid
    return Convention(IMAGENET_RANGE if normalised else UNIT_RANGE, IMAGENET_RANGE if target_normalised else UNIT_RANGE)


@dataclass(frozen=True)
class _LayerBuilder:
    state: State
    mode: NormMode

    def __call__(self, found: _Convolution) -> ConvolutionLayer:
        if found.norm_first:
            convolution = build_normalised(self.state, found.name, found.norm, self.mode)
            return ConvolutionLayer(convolution, relu=found.relu, late_norm=None)
        convolution = build_normalised(self.state, found.name, None, self.mode)
        late_norm = None
        if found.norm is not None:
            mode = self.mode if f"{found.norm}.running_mean" in self.state else "instance"
            late_norm = build_norm(self.state, found.norm, convolution.convolution.out_channels, mode)
        return ConvolutionLayer(convolution, relu=found.relu, late_norm=late_norm)


def _attention(state: State, name: str | None) -> nn.Module:
    if name is None:
        return nn.Identity()
    query, key, value = (state[f"{name}.{part}.0.weight"].float()[:, :, 0] for part in ("query", "key", "value"))
    return SelfAttention(query, key, value, state[f"{name}.gamma"].float())


def _read_structure(shapes: Shapes) -> _Structure:
    _refuse_others(shapes)
    require_filled(shapes)
    encoder, explained = read_encoder(shapes, _ENCODER_NAMES)
    reader = _Reader(shapes, explained)
    deepest = encoder.widths[-1]
    reader.batch_norm(_LAST_NORM, deepest)
    middle = (
        reader.convolution(_MIDDLE[0], deepest, 2 * deepest),
        reader.convolution(_MIDDLE[1], 2 * deepest, deepest),
    )
    blocks = []
    widths = []
    below = deepest
    for index, skip in enumerate(encoder.widths[-2::-1]):
        name = _BLOCKS[index]
        joined = below // 2 + skip
        width = joined if index < len(_BLOCKS) - 1 else joined // 2
        shuffle = reader.convolution(f"{name}.shuf.0", below, below // 2 * 4, kernel=1)
        reader.batch_norm(f"{name}.bn", skip)
        convolutions = (
            reader.convolution(f"{name}.conv1", joined, width),
            reader.convolution(f"{name}.conv2", width, width),
        )
        attention = reader.attention(f"{name}.conv2", width)
        blocks.append(_Block(shuffle, f"{name}.bn", convolutions, attention))
        widths.append(width)
        below = width
    last_shuffle = reader.convolution(_LAST_SHUFFLE, below, below * 4, kernel=1)
    cross = None
    head_name = _HEAD_ALONE
    if any(key.startswith(f"{_HEAD_AFTER_CROSS}.") for key in shapes):
        below += encoder.input_channels
        head_name = _HEAD_AFTER_CROSS
        cross = (
            reader.convolution(_CROSS[0], below, below),
            reader.convolution(_CROSS[1], below, below, relu=False),
        )
    head = reader.convolution(head_name, below, None, kernel=1, relu=False)
    require_nothing_else(shapes, reader.explained)
    if len(reader.norms) > 1:
        raise StructureMismatch(f"the normalisations of its decoder differ: {sorted(reader.norms)}")
    return _Structure(
        encoder,
        middle,
        tuple(blocks),
        last_shuffle,
        cross,
        head,
        tuple(widths),
        next(iter(reader.norms)),
        shapes[f"{head.name}.weight"][0],
    )


class _Reader:
    """Checks one layer after the other and collects what has been explained, and the decoder's kinds of norm."""

    def __init__(self, shapes: Shapes, explained: set[str]) -> None:
        self.shapes = shapes
        self.explained = explained
        self.norms: set[str] = set()

    def batch_norm(self, name: str, channels: int) -> None:
        stored = norm_keys(self.shapes, name)
        if stored != BATCH_NORM_KEYS:
            raise StructureMismatch(f"`{name}` holds {sorted(stored)}, not what batch normalisation does")
        self.explained |= norm_tensor_names(self.shapes, name, channels)

    def convolution(
        self, name: str, inputs: int, outputs: int | None, *, kernel: int = 3, relu: bool = True
    ) -> _Convolution:
        """Fastai's ConvLayer: step 0 convolves; then normalisation (step 1) and ReLU, or ReLU and it (step 2)."""
        expected = {1: inputs, 2: kernel, 3: kernel} | ({} if outputs is None else {0: outputs})
        channels = require_shape(self.shapes, f"{name}.0.weight", expected)[0]
        self.explained |= convolution_tensor_names(self.shapes, f"{name}.0", channels)
        norm, kind = None, "none"
        for step in (1, 2) if relu else (1,):
            stored = norm_keys(self.shapes, f"{name}.{step}")
            if not stored:
                continue
            if norm is not None or stored not in (BATCH_NORM_KEYS, frozenset(("weight", "bias"))):
                raise StructureMismatch(f"`{name}.{step}` holds {sorted(stored)}, which no normalisation there does")
            norm, kind = f"{name}.{step}", "batch" if stored == BATCH_NORM_KEYS else "instance, affine"
            self.explained |= norm_tensor_names(self.shapes, norm, channels)
        self.norms.add(kind)
        return _Convolution(f"{name}.0", norm, relu, norm_first=norm is None or norm.endswith(".1"))

    def attention(self, name: str, channels: int) -> str | None:
        """The self attention that is the layer's last step; its number depends on whether it normalises."""
        for step in (2, 3):
            if f"{name}.{step}.gamma" in self.shapes:
                found = f"{name}.{step}"
                inner = require_shape(self.shapes, f"{found}.query.0.weight", {1: channels, 2: 1}, dimensions=3)[0]
                for part, outputs in (("key", inner), ("value", channels)):
                    expected = {0: outputs, 1: channels, 2: 1}
                    require_shape(self.shapes, f"{found}.{part}.0.weight", expected, dimensions=3)
                require_shape(self.shapes, f"{found}.gamma", {0: 1}, dimensions=1)
                self.explained |= {f"{found}.{part}.0.weight" for part in ("query", "key", "value")}
                self.explained.add(f"{found}.gamma")
                return found
        return None


def _refuse_others(shapes: Shapes) -> None:
    """Name fastai's networks that are not this family's."""
    if not any(key.startswith("layers.4.shuf.") for key in shapes):
        raise StructureMismatch("`layers.4.shuf.0.0.weight` is missing")
    if any(key.startswith("layers.4.shuf.conv.") for key in shapes):
        raise StructureMismatch(
            "it looks like fastai 1's DynamicUnet (or DeOldify's). Whether that blurs after each doubling depends on "
            "the release it was trained with, and its weights don't say: save it as TorchScript or ONNX with its own "
            "code and export that"
        )
    if "layers.0.4.0.conv1.weight" not in shapes:
        raise StructureMismatch(
            "it looks like fastai's DynamicUnet, but its encoder isn't one of torchvision's ResNets: "
            "`layers.0.4.0.conv1.weight` is missing"
        )


def _multiplied_shapes(shapes: Shapes) -> Shapes:
    """The shapes as they are once weight and spectral normalisation are multiplied out."""
    plain = dict(shapes)
    for prefix, parts in _reparametrised(shapes).items():
        whole = shapes[parts[-1]]
        if len(whole) < 2 or f"{prefix}.weight" in shapes:
            raise StructureMismatch(f"`{parts[-1]}` {whole} can't be one of the parts of `{prefix}.weight`")
        if len(parts) == 2:
            wanted: tuple[tuple[int, ...], ...] = ((whole[0],) + (1,) * (len(whole) - 1),)
        else:
            wanted = ((whole[0],), (math.prod(whole[1:]),))
        for part, shape in zip(parts[:-1], wanted, strict=True):
            if shapes[part] != shape:
                raise StructureMismatch(f"`{part}` is {shapes[part]}, expected {shape}")
        for part in parts:
            del plain[part]
        plain[f"{prefix}.weight"] = whole
    return plain


def _multiplied(state: State) -> State:
    """The tensors with weight and spectral normalisation multiplied out, as they do it in evaluation mode."""
    plain = dict(state)
    for prefix, parts in _reparametrised({key: tuple(tensor.shape) for key, tensor in state.items()}).items():
        tensors = [plain.pop(part).float() for part in parts]
        weight = tensors[-1]
        if len(parts) == 2:
            length = weight.flatten(1).norm(dim=1)
            plain[f"{prefix}.weight"] = weight * (tensors[0] / length.reshape(tensors[0].shape))
        else:
            largest = torch.dot(tensors[0], torch.mv(weight.flatten(1), tensors[1]))  # singular value, as estimated
            plain[f"{prefix}.weight"] = weight / largest
    return plain


def _reparametrised(shapes: Shapes) -> dict[str, tuple[str, ...]]:
    """Layer -> names of the parts that its weight is computed from, the one of the weight's shape last."""
    found = {}
    for endings in (*_WEIGHT_NORM, *_SPECTRAL_NORM):
        for key in shapes:
            if key.endswith(f".{endings[-1]}"):
                prefix = key.removesuffix(f".{endings[-1]}")
                parts = tuple(f"{prefix}.{ending}" for ending in endings)
                if all(part in shapes for part in parts):
                    found[prefix] = parts
    return found


FAMILY = Family(
    name="fastai_unet",
    title="fastai 2, unet_learner with a ResNet",
    recognised_by="`layers.0.4.0.conv1.weight` and `layers.4.shuf.0.0.weight` (or `.weight_v`)",
    recognise=recognise,
    rebuild=rebuild,
    convention=Convention(IMAGENET_RANGE, IMAGENET_RANGE),
    norm="running: pretrained encoders are trained in larger batches and used in evaluation mode",
    dropout="none",
    native_size="256, or --size: any from 32",
    exact="encoder (any ResNet, Wide ResNet or ResNeXt of torchvision's), widths, channels, normalisation and its "
    "place, weight and spectral normalisation, self attention, last_cross",
    assumed="dark lines in RGB; ImageNet's statistics on both sides where there are three channels, else [0, 1]; no "
    "blur, no y_range (`--activation sigmoid` is a y_range of (0, 1)) and ReLU throughout, none of which weights show",
    source="https://github.com/fastai/fastai vision/models/unet.py and layers.py, 2.0 to 2.8",
)
