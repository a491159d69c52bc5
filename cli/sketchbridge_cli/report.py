"""Counts what becomes of the pictures, and says it at the end: in words, in JSON, and as the exit status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sketchbridge_cli.exit_status import ExitStatus

NAMED_FAILURES = 5
"""How many of the pictures that failed are named in the summary."""


class Report:
    """What became of `total` pictures so far. keep: hold each record for `document`, or count only."""

    def __init__(self, total: int, *, keep: bool) -> None:
        self._keep = keep
        self._total = total
        self._counts = {"done": 0, "failed": 0, "skipped": 0}
        self._records: dict[str, list[tuple[int, Mapping[str, Any]]]] = {name: [] for name in self._counts}
        self._failed_inputs: list[str] = []
        self._callers_fault = True

    @property
    def done(self) -> int:
        """How many were made in this run."""
        return self._counts["done"]

    @property
    def failed(self) -> int:
        """How many failed."""
        return self._counts["failed"]

    @property
    def skipped(self) -> int:
        """How many had been made before."""
        return self._counts["skipped"]

    @property
    def left(self) -> int:
        """How many nothing is known of, since the run was stopped."""
        return self._total - sum(self._counts.values())

    def add_done(self, place: int, record: Mapping[str, Any]) -> None:
        """One was made. place: among all inputs, for the order in `document`."""
        self._add("done", place, record)

    def add_skipped(self, place: int, record: Mapping[str, Any]) -> None:
        """One had been made before."""
        self._add("skipped", place, record)

    def add_failed(self, place: int, source: str, error: Exception, *, callers_fault: bool) -> None:
        """One failed. callers_fault: the call was wrong, and nothing was sent."""
        self._callers_fault &= callers_fault
        if len(self._failed_inputs) < NAMED_FAILURES:
            self._failed_inputs.append(source)
        self._add("failed", place, {"input": source, "error": type(error).__name__, "message": str(error)})

    def failures(self) -> str:
        """How many failed and the first of them, as "failed: 2 of 9: `a.png`, `b.png`"."""
        named = ", ".join(f"`{source}`" for source in self._failed_inputs)
        more = self.failed - len(self._failed_inputs)
        return f"failed: {self.failed} of {self._total}: {named}{f' and {more} more' if more else ''}"

    def document(self) -> str:
        """Everything as JSON, each list in the order of the inputs."""
        lists = {
            name: [record for _, record in sorted(records, key=lambda placed: placed[0])]
            for name, records in self._records.items()
        }
        return json.dumps({**lists, "counts": {**self._counts, "left": self.left}}, indent=2)

    def exit_status(self) -> ExitStatus:
        """FAILED if one failed or was left, but WRONG_CALL if all failed by the caller's fault."""
        if not self.failed:
            return ExitStatus.FAILED if self.left else ExitStatus.DONE
        nothing_made = self.done + self.skipped == 0
        return ExitStatus.WRONG_CALL if self._callers_fault and nothing_made else ExitStatus.FAILED

    def _add(self, name: str, place: int, record: Mapping[str, Any]) -> None:
        self._counts[name] += 1
        if self._keep:
            self._records[name].append((place, record))
