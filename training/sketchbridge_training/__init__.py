"""Trains the generators: a folder of photos in, a checkpoint that `sketchbridge export` takes out."""

from sketchbridge_training.drawing import draw
from sketchbridge_training.errors import CheckpointInvalid, DataInvalid, TrainingError
from sketchbridge_training.networks import PatchDiscriminator, UNetGenerator
from sketchbridge_training.pairs import PairStream, find_photos
from sketchbridge_training.trainer import Progress, Settings, Trainer

__all__ = [
    "CheckpointInvalid",
    "DataInvalid",
    "PairStream",
    "PatchDiscriminator",
    "Progress",
    "Settings",
    "Trainer",
    "TrainingError",
    "UNetGenerator",
    "draw",
    "find_photos",
]
