"""What can go wrong in training.

TrainingError
  OptionInvalid       a setting outside its range, or a device that is not there: fix the call
  DataInvalid         the folder holds no pictures, or too few, or ones that can't be read
  CheckpointInvalid   the run to resume is damaged, is not ours, or was made with other settings
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of everything this package raises on purpose."""


class OptionInvalid(TrainingError):
    """A setting outside its range, or a device that is not there."""


class DataInvalid(TrainingError):
    """The folder holds no pictures, or too few, or ones that can't be read."""


class CheckpointInvalid(TrainingError):
    """The run to resume is damaged, is not ours, or was made with other settings."""
