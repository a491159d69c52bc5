"""A few hundred spoiled checkpoints through the command; `python -m tests.export.fuzz_checkpoints` runs thousands."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.export import fuzz_checkpoints
from tests.export.fuzz_checkpoints import fuzz
from tests.export.mutations import CANARY, Mutation, Runs, make_originals, mutate, saved, unet

COUNT = 200


def test_no_spoiled_checkpoint_crashes_hangs_runs_or_leaves_anything_behind() -> None:
    summary = fuzz(range(COUNT), workers=2)
    assert not summary.failures, summary.as_text()
    counts = Counter(outcome.kind for outcome in summary.outcomes)
    assert counts["refused"] > COUNT / 2
    assert counts["refused"] + counts["accepted"] == COUNT


def test_a_seed_always_spoils_the_same_way_and_seeds_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    originals = make_originals()
    again = [mutate(seed, originals) for seed in range(40)]
    # What torch.save writes anew holds addresses.
    spoiled = [index for index, mutation in enumerate(again) if mutation.content not in (None, b"")]
    assert [mutate(seed, originals).label for seed in range(40)] == [mutation.label for mutation in again]
    assert len({mutation.label for mutation in again}) > 20
    fresh = ("hostile", "odd", "wrong shape", "missing", "swap", "pickled")
    kept = [index for index in spoiled if not any(word in again[index].label for word in fresh)]
    assert len(kept) > 10
    later = time.time() + 3600  # archives date their entries
    monkeypatch.setattr(time, "time", lambda: later)
    assert all(mutate(index, originals) == again[index] for index in kept)


@pytest.fixture
def examine(tmp_path: Path) -> Any:
    def run(content: bytes | None) -> tuple[str, str]:
        (tmp_path / "own").mkdir()
        return fuzz_checkpoints._examine(tmp_path / "own", Mutation("by hand", content), 1, lambda: None)

    return run


def test_the_fuzzer_accepts_a_good_checkpoint(examine: Any) -> None:
    assert examine(saved(unet())) == ("accepted", "")


def test_the_fuzzer_takes_one_line_of_error_for_a_refusal(examine: Any) -> None:
    kind, detail = examine(None)
    assert (kind, detail[:7]) == ("refused", "error: ")


def test_the_fuzzer_sees_a_pickle_that_runs(examine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    load = torch.load

    def load_carelessly(*arguments: Any, **options: Any) -> Any:
        return load(*arguments, **{**options, "weights_only": False})

    monkeypatch.setattr(torch, "load", load_carelessly)
    kind, detail = examine(saved({"generator": unet(), "extra": Runs(os.system, f"touch {CANARY}")}))
    assert (kind, detail) == ("problem", f"left behind: ['scratch/{CANARY}']")


def test_the_fuzzer_sees_an_exception_that_is_none_of_ours(examine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("sketchbridge_export.sources.torch_file.plain_metadata", break_down)
    kind, detail = examine(saved(unet()))
    assert kind == "problem"
    assert "ZeroDivisionError" in detail


def test_the_fuzzer_sees_a_worker_that_dies_or_hangs(tmp_path: Path) -> None:
    worker = fuzz_checkpoints._Worker(tmp_path)
    try:
        worker.give(0)
        worker.process.kill()
        outcome = None
        while outcome is None:
            outcome = worker.look()
        assert (outcome.kind, outcome.detail) == ("crash", "exit code -9")
        worker.give(0)
        worker.deadline = 0.0
        hung = worker.look()
        assert hung is not None
        assert hung.kind == "hang"
    finally:
        worker.end()
