"""The families of checkpoints that can be exported: one file each, all in FAMILIES.

To add one, write its file with a FAMILY record and put it into the table.
"""

from __future__ import annotations

from sketchbridge_export.errors import FamilyUnknown, OptionInvalid
from sketchbridge_export.families import (
    aladdin_unet,
    eriklindernoren_unet,
    fastai_unet,
    junyanz_resnet,
    junyanz_unet,
    keras_brownlee_unet,
    keras_model,
    keras_pooling_unet,
    keras_tutorial_unet,
    pix2pixhd,
    renderx_unet,
    sequential,
    smp_unet,
)
from sketchbridge_export.families.family import (
    ACTIVATIONS,
    BYTE_RANGE,
    IMAGENET_RANGE,
    NORM_MODES,
    TANH_CONVENTION,
    TANH_RANGE,
    UNIT_RANGE,
    Activation,
    ChannelOrder,
    Choices,
    Convention,
    Family,
    Generator,
    LinePolarity,
    NormMode,
    Recognition,
    Shapes,
    State,
    ValueRange,
    Weights,
)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        junyanz_unet.FAMILY,
        junyanz_resnet.FAMILY,
        pix2pixhd.FAMILY,
        aladdin_unet.FAMILY,
        eriklindernoren_unet.FAMILY,
        renderx_unet.FAMILY,
        sequential.FAMILY,
        smp_unet.FAMILY,
        fastai_unet.FAMILY,
        keras_model.FAMILY,
        keras_tutorial_unet.FAMILY,
        keras_brownlee_unet.FAMILY,
        keras_pooling_unet.FAMILY,
    )
}

__all__ = [
    "ACTIVATIONS",
    "BYTE_RANGE",
    "FAMILIES",
    "IMAGENET_RANGE",
    "NORM_MODES",
    "TANH_CONVENTION",
    "TANH_RANGE",
    "UNIT_RANGE",
    "Activation",
    "ChannelOrder",
    "Choices",
    "Convention",
    "Family",
    "Generator",
    "LinePolarity",
    "NormMode",
    "Recognition",
    "Shapes",
    "State",
    "ValueRange",
    "Weights",
    "find_family",
]


def find_family(weights: Weights, *, name: str | None = None) -> Family:
    """The family whose networks have tensors of these names and shapes.

    name: ask for this family only. Raises OptionInvalid if there is no family of that name, and FamilyUnknown, with
    each family's reason, if none or several recognise the tensors.
    """
    if name is not None and name not in FAMILIES:
        raise OptionInvalid(f"There is no family {name!r}; there are: {', '.join(FAMILIES)}.")
    candidates = [FAMILIES[name]] if name is not None else list(FAMILIES.values())
    answers = {family.name: family.recognise(weights) for family in candidates}
    matching = [family for family in candidates if answers[family.name].matches]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise FamilyUnknown(
            f"Several families explain this checkpoint: {', '.join(family.name for family in matching)}. "
            "Say which one with --family."
        )
    reasons = "; ".join(f"{family}: {answer.why}" for family, answer in answers.items())
    from sketchbridge_export.lookalikes import looks_like  # noqa: PLC0415 - it takes its types from here

    looks = looks_like(weights)
    seems = "" if looks is None else f" {looks}"
    raise FamilyUnknown(
        f"The checkpoint holds {len(weights.shapes)} tensors that no known generator has.{seems} {reasons}."
    )
