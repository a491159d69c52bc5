"""Says what a checkpoint was recognised as, and why, without writing anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sketchbridge_export.families import Convention, ValueRange
from sketchbridge_export.reconstruction import VALUE_RANGES, Wishes, reconstruct


@dataclass(frozen=True)
class Inspection:
    """What is known of a checkpoint.

    format: what kind of file it is. notes: what was chosen among its contents. why: what gave the family away.
    network: what was read from the weights. parameters: how many numbers it has.
    exact, assumed: what is as in the source for sure, and what no checkpoint says. metadata: the file's own.
    """

    path: Path
    sha256: str
    format: str
    notes: tuple[str, ...]
    family: str
    title: str
    why: str
    network: Mapping[str, Any]
    parameters: int
    input_channels: int
    output_channels: int
    native_size: int
    norm: str
    dropout: str
    convention: Convention
    exact: str
    assumed: str
    source: str
    metadata: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`."""
        return asdict(self) | {"path": str(self.path), "network": dict(self.network), "metadata": dict(self.metadata)}

    def as_text(self) -> str:
        """Lines for a person."""
        rows = {
            "file": f"{self.path}: {self.format}, sha256 {self.sha256[:16]}...",
            "chosen": "; ".join(self.notes) or "-",
            "family": f"{self.family}: {self.title}",
            "because": self.why,
            "network": ", ".join(f"{key} {value}" for key, value in self.network.items()) or "-",
            "size": f"{self.parameters:,} parameters",
            "takes": f"{self.native_size} x {self.native_size} pixels, {self.input_channels} channels, "
            f"{range_name(self.convention.input_range)} range, {self.convention.channel_order} order, "
            f"{self.convention.line_polarity.replace('-', ' ')}",
            "paints": f"{self.output_channels} channels, {range_name(self.convention.output_range)} range",
            "norm": self.norm,
            "dropout": self.dropout,
            "exact": self.exact,
            "assumed": self.assumed,
            "source": self.source,
        }
        if self.metadata:
            rows["says"] = ", ".join(f"{key} {value}" for key, value in self.metadata.items())
        width = max(map(len, rows))
        return "\n".join(f"{key.ljust(width)}  {value}" for key, value in rows.items())


def inspect_checkpoint(path: Path, wishes: Wishes | None = None) -> Inspection:
    """Read and recognise `path`, and rebuild its network, but write nothing. Raises what `reconstruct` raises."""
    found = reconstruct(path, wishes or Wishes())
    return Inspection(
        path=path,
        sha256=found.source.sha256,
        format=found.source.format,
        notes=found.source.notes,
        family=found.family,
        title=found.title,
        why=found.why,
        network=found.network,
        parameters=found.parameters,
        input_channels=found.input_channels,
        output_channels=found.output_channels,
        native_size=found.native_size,
        norm=found.norm,
        dropout=found.dropout,
        convention=found.convention,
        exact=found.exact,
        assumed=found.assumed,
        source=found.origin,
        metadata=found.source.metadata,
    )


def range_name(values: ValueRange) -> str:
    """The name that an option gives it, else its numbers."""
    return next((name for name, known in VALUE_RANGES.items() if known == values), f"{values.low} to {values.high}")
