"""What can go wrong between a checkpoint and the model repository.

ExportError
  OptionInvalid       the call is wrong: a name, norm, precision or folder that can't be used; fix the call
  CheckpointInvalid   the file is not a checkpoint that can be read safely; get or save another file
  FamilyUnknown       the checkpoint is readable, but no family (or more than one) explains its weights
  BuildFailed         a plan can't be built or run here: a library or a GPU is missing, or does not take the graph
  ParityFailed        the artefact was made and does not paint what the checkpoint paints; nothing was published
  RepositoryError     the model repository can't be written, or holds something else under that name
"""

from __future__ import annotations


class ExportError(Exception):
    """Base of everything this package raises on purpose."""


class OptionInvalid(ExportError):
    """An argument that does not exist, is out of range, or does not fit this checkpoint."""


class CheckpointInvalid(ExportError):
    """The file is missing, damaged, unsafe, or holds no weights."""


class FamilyUnknown(ExportError):
    """No family, or more than one, recognises the weights."""


class BuildFailed(ExportError):
    """A TensorRT library is missing, finds no GPU, or can't build or run the plan."""


class ParityFailed(ExportError):
    """The exported artefact differs from the checkpoint by more than its tolerance."""


class RepositoryError(ExportError):
    """The model repository can't take the new version."""
