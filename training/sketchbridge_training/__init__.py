"""Trains the generators: a folder of photos in, a checkpoint that `sketchbridge export` takes out.

Trainer         one run in one folder; what `sketchbridge train` drives
Settings        what defines a run
Progress        what each step reports
open_sources    the pictures to train on and those held out, from folders of photos or of pairs
PairStream      a source as an endless, repeatable stream of (sketch, photo) pairs
draw            a random line drawing of a photo
UNetGenerator, PatchDiscriminator   the networks
TrainingError   base of everything that is raised on purpose; the tree is in errors.py

Names that need torch or OpenCV are imported when they are first used, so that the command line stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from sketchbridge_training.errors import CheckpointInvalid, DataInvalid, OptionInvalid, TrainingError
from sketchbridge_training.progress import Progress
from sketchbridge_training.settings import Settings

if TYPE_CHECKING:
    from sketchbridge_training.drawing import draw
    from sketchbridge_training.networks import PatchDiscriminator, UNetGenerator
    from sketchbridge_training.pairs import PairStream
    from sketchbridge_training.sources import Source, open_sources
    from sketchbridge_training.trainer import Trainer

__all__ = [
    "CheckpointInvalid",
    "DataInvalid",
    "OptionInvalid",
    "PairStream",
    "PatchDiscriminator",
    "Progress",
    "Settings",
    "Source",
    "Trainer",
    "TrainingError",
    "UNetGenerator",
    "draw",
    "open_sources",
]

_HOME = {
    "PairStream": "pairs",
    "PatchDiscriminator": "networks",
    "Trainer": "trainer",
    "UNetGenerator": "networks",
    "draw": "drawing",
    "Source": "sources",
    "open_sources": "sources",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
