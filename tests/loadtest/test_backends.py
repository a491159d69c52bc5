"""The backend benchmark's arithmetic and report, and once the whole of it; the figures are nothing to assert."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sketchbridge_loadtest.backends import VARIANTS, Figures, Likeness, as_text, machine, measure
from tests.loadtest.paints import noting, taking


def test_rounds_alternate_and_each_variant_goes_first_in_turn() -> None:
    order: list[str] = []
    measure({name: noting(name, order) for name in "abc"}, [b"x"], [], callers=1, rounds=3)
    assert "".join(order) == "abcbcacab"


def test_ratios_are_over_the_first_variant() -> None:
    slow, fast = measure({"slow": taking(0.03), "fast": taking(0.003)}, [b"x"] * 5, [], callers=1, rounds=3)
    assert slow.ratio == 1
    assert fast.ratio > 2
    assert fast.throughput > slow.throughput
    assert fast.p50_ms < slow.p50_ms


def test_processor_time_is_that_of_the_named_processes() -> None:
    def burn(data: bytes) -> bytes:
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
        return data

    (alone,) = measure({"burn": burn}, [b"x"] * 2, [os.getpid()], callers=1, rounds=2)
    (none,) = measure({"burn": burn}, [b"x"] * 2, [], callers=1, rounds=1)
    assert alone.cpu_ms == pytest.approx(100, abs=30)
    assert none.cpu_ms == 0


def test_the_report_names_the_machine_and_every_variant() -> None:
    figures = [Figures("openvino_int8", 4, 50.0, 2.5, 60.4, 99.6, 20.0)]
    text = as_text(figures, [Likeness("openvino_int8", 0.99812, 25)])
    assert machine() in text
    assert "| openvino_int8 | 4 | 50.0 | 2.50 | 60 / 100 | 20.0 |" in text
    assert "| openvino_int8 | 0.9981 | 25 |" in text


@pytest.mark.server
def test_the_shipped_generator_is_served_in_every_way() -> None:
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "sketchbridge_loadtest.backends",
        "--callers",
        "2",
        "--rounds",
        "1",
        "--calls",
        "4",
    ]
    answer = subprocess.run([*command, "--json"], cwd=root, capture_output=True, text=True, check=True, timeout=280)
    found = json.loads(answer.stdout)
    names = [variant.name for variant in VARIANTS]
    assert [one["variant"] for one in found["figures"]] == names
    assert all(one["throughput"] > 0 and one["cpu_ms"] > 0 for one in found["figures"])
    likeness = {one["variant"]: one for one in found["likeness"]}
    assert likeness["onnxruntime_fp32"]["max_levels"] == 0
    assert likeness["openvino_fp32"]["max_levels"] <= 1
    assert likeness["openvino_int8"]["ssim"] >= 0.98
