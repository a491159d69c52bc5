"""docs/export.md says what the code does."""

from __future__ import annotations

from sketchbridge_export.parity import TOLERANCES
from sketchbridge_export.production import KINDS
from tests.conftest import ROOT
from tests.export.families_table import table

PAGE = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")


def test_the_table_of_families_is_made_from_their_records() -> None:
    assert table() in PAGE, "run `python -m tests.export.families_table` and paste it"


def test_every_tolerance_is_documented() -> None:
    for precision, tolerance in TOLERANCES.items():
        assert f"| `{precision}` | {tolerance} | {tolerance.reason} |" in PAGE


def test_every_kind_of_artefact_is_documented() -> None:
    for kind in KINDS:
        assert f"| `{kind}` |" in PAGE
