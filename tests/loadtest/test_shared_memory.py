"""That every way of calling brings the same answer, and leaves nothing behind; the figures are nothing to assert."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from sketchbridge_loadtest.cheap_server import ECHO, CheapModel, cheap_server, large_array, small_sketch
from sketchbridge_loadtest.interleaving import spread
from sketchbridge_loadtest.shared_memory import (
    COPIED,
    IN_PLACE,
    PLAIN,
    Case,
    Gain,
    as_text,
    cases,
    key_of,
    main,
    measure,
    ways,
)

PIXEL_ECHO = CheapModel("pixel_echo", "TYPE_UINT8", (64, 48, 3), "TYPE_UINT8", (64, 48, 3), echoes=True)


def regions() -> set[str]:
    """The shared memory that Python made."""
    return {name for name in os.listdir("/dev/shm") if name.startswith("psm_")}  # noqa: PTH208, S108


@pytest.mark.server
def test_every_way_brings_the_same_answer_and_leaves_no_memory_behind() -> None:
    before = regions()
    pixels = np.ascontiguousarray(large_array()[:64, :48])
    files, arrays = Case("file", ECHO, small_sketch()), Case("pixels", PIXEL_ECHO, pixels)
    with cheap_server([ECHO, PIXEL_ECHO]) as server:
        key = key_of(server)
        with tritonclient.grpc.InferenceServerClient(server.endpoints.grpc_url) as client:
            with ways(client, files, key) as found:
                assert regions() > before
                assert [found[name]() for name in (PLAIN, COPIED, IN_PLACE)] == [small_sketch()] * 3
                gain = measure(found, files, calls=2, rounds=2)
            with ways(client, arrays, key) as found:
                for name in (PLAIN, COPIED, IN_PLACE):
                    np.testing.assert_array_equal(np.asarray(found[name]()), pixels[None])
            with pytest.raises(InferenceServerException, match="sketchbridge-key"):
                client.register_system_shared_memory("other", "/other", 1)
    assert gain.plain_ms > 0
    assert regions() == before


def test_the_cases_are_those_of_the_job_and_pixels_of_a_known_size() -> None:
    found = cases()
    assert [isinstance(case.given, bytes) for case in found] == [True, True, False, False]
    assert [case.size_bytes for case in found][2:] == [2160 * 3840 * 3, 256 * 256 * 3]


def test_the_report_says_how_it_was_run_and_gives_ratios() -> None:
    gain = Gain("sketch", 1033, plain_ms=0.6, copied=spread([0.9]), in_place=spread([0.8]))
    text = as_text([gain], "the run")
    assert text.startswith("the run\n")
    assert "| sketch | 1,033 | 0.600 | 0.900 (0.900 to 0.900) | 0.800 (0.800 to 0.800) |" in text


def test_no_calls_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--rounds", "0"])
    assert refused.value.code == 2
    assert "`0` is no whole number from 1" in capsys.readouterr().err
