"""The families of checkpoints that can be exported: one file each, all in FAMILIES.

To add one, write its file with a FAMILY record and put it into the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

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

    name: ask for this family only. Raises OptionInvalid if there is no family of that name, and FamilyUnknown if none
    or several recognise the tensors, with what they look like, or else with each family's reason.
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
    if name is not None:
        raise FamilyUnknown(
            f"The checkpoint is no {name}: {answers[name].why}. Leave --family out to have it recognised."
        )
    from sketchbridge_export.lookalikes import looks_like  # noqa: PLC0415 - it takes its types from here

    seems = looks_like(weights)
    reasons = _reasons(answers, nearest_only=seems is not None)
    raise FamilyUnknown(
        f"The checkpoint holds {len(weights.shapes)} tensors that no known generator has. "
        + " ".join(sentence for sentence in (seems, reasons) if sentence)
    )


def _reasons(answers: Mapping[str, Recognition], *, nearest_only: bool) -> str:
    """Each family's reason, without those that three or more give: these are about another framework.

    ResNet generators are of two families, which read the same beginning and may give the same reason.

    nearest_only: those families only whose first tensors are there, so that more than a name was compared. Plain lists
    have no names to go by.
    """
    times = Counter(answer.why for answer in answers.values())
    own = {family: answer.why for family, answer in answers.items() if times[answer.why] <= 2}
    if nearest_only:
        own.pop(sequential.FAMILY.name, None)
        own = {family: why for family, why in own.items() if not why.endswith("is missing")}
        return "".join(f"Or it is no {family} because {why}. " for family, why in own.items()).strip()
    return f"{'; '.join(f'{family}: {why}' for family, why in own.items()) or next(iter(times))}."
