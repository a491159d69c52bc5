from __future__ import annotations

import io
import json
import sys

import pytest

from sketchbridge_cli.progress import make_progress, pace, printable
from sketchbridge_cli.report import Report


def report_of(
    done: int = 0, failed: int = 0, skipped: int = 0, left: int = 0, *, callers_fault: bool = False
) -> Report:
    report = Report(done + failed + skipped + left, keep=True)
    for place in range(done):
        report.add_done(place, {"input": f"{place}.png"})
    for place in range(failed):
        report.add_failed(place, f"{place}.png", ValueError("bad"), callers_fault=callers_fault)
    for place in range(skipped):
        report.add_skipped(place, {"input": f"{place}.png"})
    return report


def test_the_document_lists_in_the_order_of_the_inputs() -> None:
    report = Report(5, keep=True)
    for place in (3, 0):
        report.add_done(place, {"input": f"{place}.png"})
    report.add_failed(2, "2.png", ValueError("bad"), callers_fault=False)
    report.add_skipped(1, {"input": "1.png"})
    assert json.loads(report.document()) == {
        "done": [{"input": "0.png"}, {"input": "3.png"}],
        "failed": [{"input": "2.png", "error": "ValueError", "message": "bad"}],
        "skipped": [{"input": "1.png"}],
        "counts": {"done": 2, "failed": 1, "skipped": 1, "left": 1},
    }


def test_a_report_that_keeps_nothing_still_counts() -> None:
    report = Report(1000, keep=False)
    for place in range(1000):
        report.add_failed(place, f"{place}.png", ValueError("bad"), callers_fault=False)
    assert report.failed == 1000
    assert report.failures() == "failed: 1000 of 1000: `0.png`, `1.png`, `2.png`, `3.png`, `4.png` and 995 more"
    assert json.loads(report.document())["failed"] == []


def test_a_few_failures_are_all_named() -> None:
    assert report_of(done=7, failed=2).failures() == "failed: 2 of 9: `0.png`, `1.png`"


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (report_of(done=2), 0),
        (report_of(skipped=2), 0),
        (report_of(done=2, failed=1), 1),
        (report_of(failed=1), 1),
        (report_of(done=2, left=1), 1),
        (report_of(failed=2, callers_fault=True), 2),
        (report_of(failed=2, done=1, callers_fault=True), 1),
        (report_of(failed=2, skipped=1, callers_fault=True), 1),
    ],
)
def test_the_exit_status_tells_done_from_failed_from_a_wrong_call(report: Report, status: int) -> None:
    assert report.exit_status() == status


def test_the_pace_is_pictures_a_second_failures_and_time_left() -> None:
    assert pace(120, 2, 1000, 4.0) == "120 of 1000, 2 failed, 30 pictures/s, 29 s left"
    assert pace(0, 0, 10, 4.0) == "0 of 10, 0 failed"


def test_a_name_that_is_no_text_is_printed_as_escapes() -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    utf8 = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert printable("\udcff ü", ascii_only) == "\\udcff \\xfc"
    assert printable("\udcff ü", utf8) == "\\udcff ü"


def test_lines_tell_of_each_picture_but_not_of_one_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for total in (1, 2):
        with make_progress(total, as_bar=False) as progress:
            progress.started(1, "a.png")
            progress.finished(failed=False)
            progress.print("wrote", sys.stdout)
    shown = capsys.readouterr()
    assert shown.err == "[1/2] a.png\n"
    assert shown.out == "wrote\nwrote\n"


def test_lines_are_followed_by_the_pace_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sketchbridge_cli.progress.STATUS_EVERY_S", 0.0)
    with make_progress(3, as_bar=False) as progress:
        progress.finished(failed=True)
    assert capsys.readouterr().err.startswith("1 of 3, 1 failed, ")


def test_a_bar_counts_failures_and_keeps_lines_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with make_progress(2, as_bar=True) as progress:
        progress.started(1, "a.png")
        progress.finished(failed=True)
        progress.print("wrote", sys.stdout)
        progress.finished(failed=False)
    shown = capsys.readouterr()
    assert shown.out == "wrote\n"
    assert "2/2" in shown.err
    assert "1 failed" in shown.err
    assert "pictures/s" in shown.err


def test_without_tqdm_there_are_lines_instead_of_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with make_progress(2, as_bar=True) as progress:
        progress.started(1, "a.png")
    assert capsys.readouterr().err == "[1/2] a.png\n"
