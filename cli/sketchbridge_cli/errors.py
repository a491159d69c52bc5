"""What the command line itself can refuse.

CommandError
  UsageError      the call is wrong: exit 2
  FolderBusy      another run is writing into the folder: exit 2
  MissingExtra    a package that the command needs is not installed: exit 2
"""

from __future__ import annotations


class CommandError(Exception):
    """Base of what this package raises on purpose."""


class UsageError(CommandError):
    """Options that do not go together, or that would destroy something."""


class FolderBusy(CommandError):
    """Another run is writing into the same folder now."""


class MissingExtra(CommandError):
    """A package that the command needs is not installed."""
