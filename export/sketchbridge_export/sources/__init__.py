"""Readers of files that nobody has vouched for: one file each, none of which lets a file run code."""

from sketchbridge_export.sources.source import Checkpoint
from sketchbridge_export.sources.torch_file import load_checkpoint

__all__ = ["Checkpoint", "load_checkpoint"]
