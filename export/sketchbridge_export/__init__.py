"""From a checkpoint to a served model: recognise, rebuild, export, compare, publish.

export_checkpoint   the whole way; what `sketchbridge export` calls
load_checkpoint     a checkpoint file's weights, read safely
FAMILIES            the kinds of checkpoints that are understood
ExportError         base of everything that is raised on purpose; the tree is in errors.py

Names that need torch are imported when they are first used, so that the command line stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sketchbridge_export.errors import (
    BuildFailed,
    CheckpointInvalid,
    ExportError,
    FamilyUnknown,
    OptionInvalid,
    ParityFailed,
    RepositoryError,
)

if TYPE_CHECKING:
    from sketchbridge_export.export import ExportReport, export_checkpoint
    from sketchbridge_export.families import FAMILIES, Family
    from sketchbridge_export.sources import Checkpoint, load_checkpoint

__all__ = [
    "FAMILIES",
    "BuildFailed",
    "Checkpoint",
    "CheckpointInvalid",
    "ExportError",
    "ExportReport",
    "Family",
    "FamilyUnknown",
    "OptionInvalid",
    "ParityFailed",
    "RepositoryError",
    "export_checkpoint",
    "load_checkpoint",
]

_HOME = {
    "FAMILIES": "families",
    "Checkpoint": "sources",
    "ExportReport": "export",
    "Family": "families",
    "export_checkpoint": "export",
    "load_checkpoint": "sources",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
