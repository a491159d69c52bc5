"""Generators that are one plain `nn.Sequential` (or two, `encoder` and `decoder`), rebuilt from numbers and shapes.

Names such as `model.3.weight` say where each step with weights stands, and so how many steps without weights lie
between. What those are is read only where one reading is left:

    conv, gap of 1, conv                an activation
    conv, norm, gap of 1, conv          an activation
    conv, norm, gap of 2, transposed    an activation and a dropout, in either order; the dropout is off

A 4 x 4 convolution halves the picture or doubles it (stride 2, padding 1), as everywhere since DCGAN and pix2pix. A
network that paints as large as it sees has as many doublings as halvings, so the first half of them halve. An odd
kernel keeps the size. Everything else is refused with its reason: a skip connection, a stride or an unseen activation
guessed wrong would paint a picture, but not the checkpoint's.

Which statistics? Plain networks are judged in evaluation mode: the default is "running".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import nn

from sketchbridge_export.errors import OptionInvalid
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
    NormalisedConvolution,
    NormKind,
    StructureMismatch,
    build_convolution,
    build_norm,
    build_transposed,
    choose_free_size,
    choose_norm,
    norm_tensor_names,
    refuse_dropout,
    require_shape,
    require_torch,
)

_DEFAULT_NORM: NormMode = "running"
_DEFAULT_ACTIVATION: Activation = "tanh"
_PICTURE_CHANNELS = (1, 3)
_SIZE_KEEPING_KERNELS = (1, 3, 5, 7, 9)
_MOST_HALVINGS = 8  # they leave one of 256 pixels
_LEAK = 0.2
_NAME = re.compile(
    r"(?:(?P<list>[A-Za-z_]\w*)\.)?(?P<step>0|[1-9][0-9]{0,3})\."
    r"(?P<part>weight|bias|running_mean|running_var|num_batches_tracked)"
)
_BATCH_NORM_PARTS = {"weight", "bias", "running_mean", "running_var"}
_LATENT_HINT = "it looks like a generator that paints from a latent vector"

Kind = Literal["convolution", "norm", "prelu"]
# What lies between two convolutions: norms (N), PReLUs (P) and steps without weights (-), in their order; and what it
# means: which of them is the activation. "/" is where an encoder ends and its decoder begins; weightless steps at an
# encoder's end leave no trace in the numbers.
_BETWEEN: Mapping[str, str] = {
    "-": "an activation",
    "N-": "a norm, an activation",
    "-N": "an activation, a norm",
    "P": "an activation",
    "NP": "a norm, an activation",
    "PN": "an activation, a norm",
    "P/": "an activation",
    "NP/": "a norm, an activation",
    "PN/": "an activation, a norm",
    "-N/": "an activation, a norm",
    "N/": "a norm, an activation that ends the encoder",  # a norm is there to be followed by one
    "/-": "an activation",
    "N/-": "a norm, an activation",  # ReLU(LeakyReLU(x)) is ReLU(x), so it does not matter if the encoder ends in one
}
_BETWEEN_DECODING: Mapping[str, str] = {"N--": "a norm, an activation, a dropout"}


@dataclass(frozen=True)
class _Step:
    """A step with weights. sequence: the name of its list, "" for the bare one."""

    sequence: str
    number: int
    kind: Kind
    shape: tuple[int, ...]

    @property
    def prefix(self) -> str:
        return f"{self.sequence}.{self.number}" if self.sequence else str(self.number)


@dataclass(frozen=True)
class _Stage:
    """A convolution and what follows it. role: what it does to the picture's size."""

    convolution: _Step
    role: Literal["halve", "double", "keep"]
    outputs: int
    pattern: str  # a key of _BETWEEN or _BETWEEN_DECODING; "" after the last one
    norm: _Step | None
    prelu: _Step | None


@dataclass(frozen=True)
class _Structure:
    stages: tuple[_Stage, ...]
    input_channels: int
    halvings: int
    norm_kind: NormKind


def recognise(weights: Weights) -> Recognition:
    """Whether numbers and shapes leave one reading, in which it paints a picture of the size it is given."""
    try:
        found = _read_structure(weights)
    except StructureMismatch as exc:
        return Recognition(matches=False, why=str(exc))
    return Recognition(
        matches=True,
        why=f"plain sequence of {len(found.stages)} convolutions, {found.halvings} of which halve, "
        f"norm {found.norm_kind}; {_activations(found)}",
    )


def rebuild(weights: Weights, choices: Choices) -> Generator:
    """The network with these weights; see Family.rebuild."""
    found = _read_structure(weights)
    mode = choose_norm(found.norm_kind, choices.norm, default=_DEFAULT_NORM)
    has_dropout = any(stage.pattern in _BETWEEN_DECODING for stage in found.stages)
    if has_dropout and choices.dropout_seed is not None:
        raise OptionInvalid(
            "This network has dropout, but its weights don't say how much or before which activation. "
            "Leave --dropout out."
        )
    refuse_dropout(choices)
    least = 2 if mode == "instance" else 1  # one pixel has no statistics of its own
    native_size = choose_free_size(choices, multiple=2**found.halvings, smallest=least * 2**found.halvings)
    last = choices.activation or _DEFAULT_ACTIVATION
    unit = last == "sigmoid"
    return Generator(
        module=_build(found, weights.tensors, mode, last).eval().requires_grad_(requires_grad=False),
        input_channels=found.input_channels,
        output_channels=found.stages[-1].outputs,
        native_size=native_size,
        norm=mode or "none",
        facts={
            "convolutions": len(found.stages),
            "halvings": found.halvings,
            "widths": [stage.outputs for stage in found.stages],
            "norm_kind": found.norm_kind,
            "activations": _activations(found),
            "activation": last,
        },
        dropout="off" if has_dropout else "none",
        convention=Convention(UNIT_RANGE, UNIT_RANGE) if unit else Convention(TANH_RANGE, TANH_RANGE),
    )


def _activations(found: _Structure) -> str:
    """What is taken for the activations, in words: the weights don't say it."""
    if all(stage.prelu is not None for stage in found.stages[:-1]):
        return "PReLU throughout"
    return (
        f"taken for LeakyReLU {_LEAK} up to the last halving and ReLU after it" if found.halvings else "taken for ReLU"
    )


def _build(found: _Structure, state: State, mode: NormMode | None, last: Activation) -> nn.Sequential:
    halving = [index for index, stage in enumerate(found.stages) if stage.role == "halve"]
    leaky_until = halving[-1] if halving else -1
    steps: list[nn.Module] = []
    for index, stage in enumerate(found.stages):
        prefix, kernel = stage.convolution.prefix, stage.convolution.shape[2]
        convolution: nn.Conv2d | nn.ConvTranspose2d
        if stage.role == "double":
            convolution = build_transposed(state, prefix)
        else:
            halve = stage.role == "halve"
            convolution = build_convolution(
                state, prefix, stride=2 if halve else 1, padding=1 if halve else kernel // 2
            )
        norm: nn.Module = nn.Identity()
        if stage.norm is not None and mode is not None:
            norm = build_norm(state, stage.norm.prefix, stage.outputs, mode)
        activation: nn.Module = nn.ReLU()
        if stage.prelu is not None:
            activation = nn.PReLU(stage.prelu.shape[0])
            activation.load_state_dict({"weight": state[f"{stage.prelu.prefix}.weight"].float()})
        elif index <= leaky_until and not stage.pattern.endswith("/-"):  # the decoder's own first step is a ReLU
            activation = nn.LeakyReLU(_LEAK)
        if not stage.pattern:
            steps.append(convolution)
        elif stage.pattern.rstrip("/") in ("-N", "PN"):
            steps += [convolution, activation, norm]
        else:
            steps += [NormalisedConvolution(convolution, norm), activation]
    ending: dict[Activation, nn.Module] = {"tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(), "none": nn.Identity()}
    return nn.Sequential(*steps, ending[last])


def _read_structure(weights: Weights) -> _Structure:
    require_torch(weights)
    shapes = weights.shapes
    steps = _read_steps(shapes)
    convolutions = [index for index, step in enumerate(steps) if step.kind == "convolution"]
    _check_ends(steps, convolutions)
    roles = _read_roles([steps[index] for index in convolutions], shapes)
    halving = [index for index, (role, _) in enumerate(roles) if role == "halve"]
    stages = []
    for order, (index, (role, outputs)) in enumerate(zip(convolutions, roles, strict=True)):
        following = convolutions[order + 1] if order + 1 < len(convolutions) else None
        if following is None:
            stages.append(_Stage(steps[index], role, outputs, "", None, None))
            continue
        between = steps[index + 1 : following]
        pattern = _pattern(steps[index], between, steps[following])
        _require_one_reading(pattern, steps[index], steps[following], decoding=roles[order + 1][0] == "double")
        norm = next((step for step in between if step.kind == "norm"), None)
        prelu = next((step for step in between if step.kind == "prelu"), None)
        for step in between:
            if step.shape[0] not in (outputs, 1 if step.kind == "prelu" else outputs):
                raise StructureMismatch(f"`{step.prefix}` is for {step.shape[0]} channels, but {outputs} come to it")
        if norm is not None:
            norm_tensor_names(shapes, norm.prefix, outputs)
        stages.append(_Stage(steps[index], role, outputs, pattern, norm, prelu))
    norms = {stage.norm is not None for stage in stages}
    return _Structure(
        stages=tuple(stages),
        input_channels=steps[convolutions[0]].shape[1],
        halvings=len(halving),
        norm_kind="batch" if True in norms else "none",
    )


def _read_steps(shapes: Shapes) -> list[_Step]:
    parts: dict[tuple[str, int], set[str]] = {}
    for name in shapes:
        match = _NAME.fullmatch(name)
        if match is None:
            raise StructureMismatch(
                f"a plain numbering such as `model.3.weight` is missing: `{name}` shows a structure whose connections "
                "names and shapes don't tell"
            )
        parts.setdefault((match["list"] or "", int(match["step"])), set()).add(match["part"])
    if not parts:
        raise StructureMismatch("tensors are missing")
    sequences = {sequence for sequence, _ in parts}
    if len(sequences) > 1 and sequences != {"encoder", "decoder"}:
        raise StructureMismatch(f"it has the lists {', '.join(sorted(sequences))}; in which order is not to be seen")
    ordered = sorted(parts, key=lambda key: (key[0] == "decoder", key[1]))
    return [_read_step(shapes, sequence, number, parts[sequence, number]) for sequence, number in ordered]


def _read_step(shapes: Shapes, sequence: str, number: int, parts: set[str]) -> _Step:
    prefix = f"{sequence}.{number}" if sequence else str(number)
    if "weight" not in parts:
        raise StructureMismatch(f"`{prefix}.weight` is missing: what the step is can't be told without it")
    shape = shapes[f"{prefix}.weight"]
    kind: Kind
    if len(shape) == 4 and parts <= {"weight", "bias"}:
        kind = "convolution"
        require_shape(shapes, f"{prefix}.weight", {})
    elif len(shape) == 2:
        raise StructureMismatch(
            f"`{prefix}` is a fully connected layer, as latent-vector generators and classifiers have"
        )
    elif len(shape) == 1 and parts >= _BATCH_NORM_PARTS:
        kind = "norm"
    elif len(shape) == 1 and parts == {"weight"}:
        kind = "prelu"
    elif len(shape) == 1 and parts == {"weight", "bias"}:
        raise StructureMismatch(f"`{prefix}` may be instance or group normalisation: both store the same")
    else:
        raise StructureMismatch(f"`{prefix}` holds {sorted(parts)} {shape}, which no step of a plain generator does")
    return _Step(sequence, number, kind, shape)


def _check_ends(steps: Sequence[_Step], convolutions: Sequence[int]) -> None:
    if len(convolutions) < 2:
        raise StructureMismatch("it has fewer than two convolutions")
    first, last = steps[convolutions[0]], steps[convolutions[-1]]
    inputs = first.shape[1]
    if inputs not in _PICTURE_CHANNELS:
        hint = f" ({_LATENT_HINT})" if first.shape[2] == 4 else ""
        raise StructureMismatch(f"`{first.prefix}.weight` {first.shape} takes {inputs} channels, not 1 or 3{hint}")
    if convolutions[0] != 0 or first.number != 0:
        raise StructureMismatch(
            f"its first convolution is `{first.prefix}`: what comes before it, a padding or a resizing, has no weights "
            "to be known by"
        )
    if convolutions[-1] != len(steps) - 1:
        raise StructureMismatch(f"`{steps[-1].prefix}` follows its last convolution, `{last.prefix}`")


def _read_roles(convolutions: Sequence[_Step], shapes: Shapes) -> list[tuple[Literal["halve", "double", "keep"], int]]:
    """What each convolution does to the size, and its output channels, by walking along the widths."""
    resizing = [step for step in convolutions if step.shape[2:] == (4, 4)]
    halvings = len(resizing) // 2
    _check_resizing(convolutions, resizing)
    width = convolutions[0].shape[1]
    roles: list[tuple[Literal["halve", "double", "keep"], int]] = []
    for step in convolutions:
        outputs, inputs, height, breadth = step.shape
        role: Literal["halve", "double", "keep"] = "keep"
        if step in resizing:
            role = "halve" if resizing.index(step) < halvings else "double"
        elif height != breadth or height not in _SIZE_KEEPING_KERNELS:
            raise StructureMismatch(f"`{step.prefix}` has a {height} x {breadth} kernel, whose stride can't be told")
        if role == "double":
            inputs, outputs = outputs, inputs
        if inputs != width:
            raise StructureMismatch(_chain_problem(step, width, role))
        if f"{step.prefix}.bias" in shapes and shapes[f"{step.prefix}.bias"] != (outputs,):
            raise StructureMismatch(f"`{step.prefix}.bias` is not one value for each of {outputs} channels")
        roles.append((role, outputs))
        width = outputs
    if width not in _PICTURE_CHANNELS:
        raise StructureMismatch(f"it ends in {width} channels; a picture has 1 or 3")
    if not resizing and width != 3:
        raise StructureMismatch("it only filters and ends in one channel, as patch discriminators do")
    return roles


def _chain_problem(step: _Step, width: int, role: str) -> str:
    if role == "keep" and step.shape[0] == width:
        kernel = step.shape[2]
        return f"`{step.prefix}` is a transposed {kernel} x {kernel} convolution, whose stride can't be told"
    return (
        f"`{step.prefix}.weight` {step.shape} does not go on from {width} channels: there is a skip connection, or "
        "another step, that names and shapes don't tell"
    )


def _check_resizing(convolutions: Sequence[_Step], resizing: Sequence[_Step]) -> None:
    """That as many 4 x 4 convolutions can double as halve, and which ones is sure."""
    halvings = len(resizing) // 2
    if resizing and all(a.shape[0] == b.shape[1] for a, b in pairwise(convolutions)):
        last = convolutions[-1]
        raise StructureMismatch(
            f"up to `{last.prefix}.weight` {last.shape} it may halve and never double: it looks like a "
            "discriminator or an encoder"
        )
    if len(resizing) % 2:
        raise StructureMismatch(
            f"it has {len(resizing)} convolutions of 4 x 4: it doesn't paint as large as it sees, or not all of them "
            "have stride 2"
        )
    if halvings > _MOST_HALVINGS:
        raise StructureMismatch(f"it halves {halvings} times; 256 pixels allow {_MOST_HALVINGS}")
    for index in range(halvings):
        down, up = resizing[index], resizing[-1 - index]
        for step in (down, up):
            # A square weight would fit either direction; only a mirrored network settles it.
            if step.shape[0] == step.shape[1] and down.shape[:2] != up.shape[:2]:
                raise StructureMismatch(
                    f"`{step.prefix}` may halve or double: {step.shape} fits both, and its counterpart differs"
                )
    if halvings > 1:
        outputs, inputs = resizing[halvings - 1].shape[:2]
        if outputs not in (inputs, 2 * inputs):
            raise StructureMismatch(
                f"`{resizing[halvings - 1].prefix}` leads from {inputs} to {outputs} channels in the middle: it may "
                "halve, or be a latent layer of stride 1"
            )


def _pattern(before: _Step, between: Sequence[_Step], after: _Step) -> str:
    """The steps from one convolution to the next, as _BETWEEN writes them."""
    result, sequence, number = "", before.sequence, before.number
    for step in (*between, after):
        if step.sequence != sequence:
            result += "/"
            sequence, number = step.sequence, -1
        result += "-" * (step.number - number - 1)
        if step is not after:
            result += "N" if step.kind == "norm" else "P"
        number = step.number
    return result


def _require_one_reading(pattern: str, before: _Step, after: _Step, *, decoding: bool) -> None:
    if pattern in _BETWEEN or (decoding and pattern in _BETWEEN_DECODING):
        return
    where = f"between `{before.prefix}` and `{after.prefix}`"
    if pattern in ("", "N"):
        raise StructureMismatch(f"{where} there is no activation: its code does something that the names don't tell")
    if pattern == "/":
        raise StructureMismatch(f"{where} an activation may or may not end the encoder")
    unknown = pattern.count("-")
    if unknown > 1:
        raise StructureMismatch(
            f"{where} lie {unknown} steps without weights: normalisation, dropout, padding, pooling and enlarging all "
            "leave the same names"
        )
    raise StructureMismatch(f"{where} lie steps in an order that no known generator has ({pattern})")


FAMILY = Family(
    name="sequential",
    title="plain nn.Sequential generators",
    recognised_by="nothing but `model.N`, `main.N`, `layers.N`, `N` or `encoder.N` and `decoder.N`, one reading left",
    recognise=recognise,
    rebuild=rebuild,
    convention=TANH_CONVENTION,
    norm="running: plain networks are judged in evaluation mode",
    dropout="off: where it may be, neither its place nor its rate is known",
    native_size="256, or any multiple of 2 ** halvings",
    exact="order, widths, channels, batch normalisation, biases, PReLU",
    assumed="4 x 4 kernels have stride 2 and padding 1, odd ones keep the size, all padded with zeros; LeakyReLU 0.2 "
    "up to the last halving, ReLU after it; tanh at the end and values in [-1, 1] (with --activation sigmoid: "
    "values in [0, 1]); epsilon 1e-5 in norms; dark lines in RGB",
    source="https://pytorch.org/docs/stable/generated/torch.nn.Sequential.html",
)
