"""The `sketchbridge` command. Nothing heavy is imported until a sub-command that needs it is called."""

from __future__ import annotations

from sketchbridge_cli.entry import main

__all__ = ["main"]
