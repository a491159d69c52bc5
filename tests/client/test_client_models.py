from __future__ import annotations

import pytest

from sketchbridge_client import ModelKind
from sketchbridge_client.models import IndexEntry, kind_of, summarise

BYTES, PIXELS = "BYTES", "UINT8"


@pytest.mark.parametrize(
    ("inputs", "outputs", "kind"),
    [
        ({"sketch": BYTES}, {"photo": BYTES}, ModelKind.PAINTER),
        ({"sketch": BYTES}, {"photo": BYTES, "mask": BYTES}, ModelKind.PAINTER),
        ({"photo": BYTES}, {"sketch": BYTES}, ModelKind.SKETCHER),
        ({"photo": BYTES}, {"sketch": BYTES, "sketch_image": PIXELS}, ModelKind.SKETCHER),
        ({"photo": BYTES}, {"sketch": BYTES, "repainted": BYTES}, ModelKind.ROUNDTRIP),
        ({"sketch": PIXELS}, {"photo": PIXELS}, ModelKind.GENERATOR),
        ({"image_bytes": BYTES}, {"image": PIXELS, "sketch": PIXELS}, ModelKind.BUILDING_BLOCK),
        ({"image": PIXELS}, {"image_bytes": BYTES}, ModelKind.BUILDING_BLOCK),
        ({"sketch": BYTES}, {"photo": PIXELS}, ModelKind.UNKNOWN),
        ({"sketch": BYTES, "seed": "INT64"}, {"photo": BYTES}, ModelKind.UNKNOWN),
        ({"image": PIXELS}, {"boxes": "FP32"}, ModelKind.UNKNOWN),
        ({}, {}, ModelKind.UNKNOWN),
    ],
)
def test_a_model_is_told_by_its_tensors(inputs: dict[str, str], outputs: dict[str, str], kind: ModelKind) -> None:
    assert kind_of(inputs, outputs) is kind


def test_versions_are_ordered_as_numbers_and_only_ready_ones_are_listed() -> None:
    entries = [
        IndexEntry("shoes", "10", "READY", ""),
        IndexEntry("shoes", "9", "READY", ""),
        IndexEntry("shoes", "11", "UNAVAILABLE", "no memory"),
        IndexEntry("birds", "1", "READY", ""),
    ]
    info = summarise("shoes", entries, ModelKind.PAINTER)
    assert (info.name, info.versions, info.ready, info.reason) == ("shoes", ("9", "10"), True, "")


def test_a_model_that_is_not_ready_says_why_once() -> None:
    entries = [IndexEntry("shoes", version, "UNAVAILABLE", "Internal: no weights\n") for version in "12"]
    info = summarise("shoes", entries, ModelKind.UNKNOWN)
    assert (info.versions, info.ready, info.reason) == ((), False, "Internal: no weights")


def test_a_model_that_was_never_loaded_says_so() -> None:
    assert summarise("shoes", [IndexEntry("shoes", "", "", "")], ModelKind.UNKNOWN).reason == "not loaded"
