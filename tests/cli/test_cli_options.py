from __future__ import annotations

import argparse
import inspect
from typing import Any

import pytest

from sketchbridge_cli import options
from sketchbridge_cli.errors import UsageError
from sketchbridge_cli.options import (
    add_batch,
    add_connection,
    add_encoding,
    add_fitting,
    add_method,
    method_parameters,
)
from sketchbridge_cli.picture_format import SUFFIXES, OutputFormat, choose_format
from sketchbridge_client import Client
from sketchbridge_client.formats import FORMATS


def parse(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_connection(parser)
    add_method(parser)
    add_fitting(parser)
    add_encoding(parser)
    add_batch(parser, default_folder_jobs=4)
    return parser.parse_args(given)


def test_the_defaults_are_the_clients_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SKETCHBRIDGE_URL", raising=False)
    of_client = inspect.signature(Client).parameters
    assert of_client["url"].default == options.DEFAULT_URL
    assert of_client["timeout_s"].default == options.DEFAULT_TIMEOUT_S
    assert (parse().url, parse().timeout_s) == (options.DEFAULT_URL, options.DEFAULT_TIMEOUT_S)


def test_the_environment_names_the_server_and_the_flag_goes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKETCHBRIDGE_URL", "127.0.0.1:9001")
    assert parse().url == "127.0.0.1:9001"
    assert parse("--url", "127.0.0.1:9002").url == "127.0.0.1:9002"
    monkeypatch.setenv("SKETCHBRIDGE_URL", "")
    assert parse().url == options.DEFAULT_URL


@pytest.mark.parametrize(("given", "meant"), [("5", 5.0), ("0.5", 0.5), ("none", None), ("None", None)])
def test_a_timeout_is_seconds_or_none(given: str, meant: float | None) -> None:
    assert parse("--timeout", given).timeout_s == meant


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", ""])
def test_anything_else_is_no_timeout(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(f"--timeout={given}")
    assert "expected more than 0 seconds, or `none` for no limit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a=5", 5),
        ("a=-5", -5),
        ("a=0.8", 0.8),
        ("a=1e3", 1000.0),
        ("a=true", True),
        ("a=False", False),
        ("a=nan", "nan"),
        ("a=inf", "inf"),
        ("a=soft", "soft"),
        ("a=", ""),
        ("a=b=c", "b=c"),
    ],
)
def test_a_setting_has_the_type_it_looks_like(given: str, meant: Any) -> None:
    value = method_parameters(parse("--set", given))["a"]
    assert value == meant
    assert type(value) is type(meant)


@pytest.mark.parametrize("given", ["a", "=5", "two words=5", "a-b=5"])
def test_a_setting_without_a_key_and_a_value_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--set", given)
    assert "expected KEY=VALUE" in capsys.readouterr().err


def test_settings_add_up() -> None:
    assert method_parameters(parse("--set", "a=1", "--set", "b=2")) == {"a": 1, "b": 2}


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="given twice"):
        method_parameters(parse("--set", "a=1", "--set", "a=2"))


@pytest.mark.parametrize(
    ("key", "flag"),
    [
        ("method", "--method"),
        ("fit", "--fit"),
        ("normalise", "--normalise"),
        ("output_format", "--output-format"),
        ("quality", "--quality"),
        ("timeout_s", "--timeout"),
    ],
)
def test_a_setting_cannot_stand_in_for_a_flag_that_the_command_has(key: str, flag: str) -> None:
    with pytest.raises(UsageError, match=f"`--set {key}=...` is not possible; use {flag}"):
        method_parameters(parse("--set", f"{key}=1"))


@pytest.mark.parametrize("key", ["model", "self", "photo", "max_side_px"])
def test_a_setting_without_a_flag_is_left_to_the_server(key: str) -> None:
    assert method_parameters(parse("--set", f"{key}=1")) == {key: 1}


@pytest.mark.parametrize("given", ["1", "8", "64"])
def test_jobs_are_few(given: str) -> None:
    assert parse("--jobs", given).jobs == int(given)
    assert parse().jobs is None


@pytest.mark.parametrize("given", ["0", "65", "-1", "1.5", "many", ""])
def test_any_other_number_of_jobs_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(f"--jobs={given}")
    assert "expected 1 to 64" in capsys.readouterr().err


def test_the_formats_are_the_clients_own() -> None:
    assert {known.name: known.suffixes for known in FORMATS} == SUFFIXES


@pytest.mark.parametrize(
    ("asked", "output_file", "chosen"),
    [
        (None, None, ("png", ".png")),
        ("jpeg", None, ("jpeg", ".jpg")),
        (None, "a.JPEG", ("jpeg", ".JPEG")),
        ("webp", "a.webp", ("webp", ".webp")),
    ],
)
def test_the_format_is_the_one_asked_for_or_that_of_the_suffix(
    asked: OutputFormat | None, output_file: str | None, chosen: tuple[str, str]
) -> None:
    assert choose_format(asked, output_file) == chosen


@pytest.mark.parametrize(
    ("asked", "output_file", "words"),
    [
        (None, "a.gif", "ends in `.gif`, so its format is not known. Use one of .png, .jpg, .jpeg, .webp"),
        (None, "a", "has no suffix"),
        ("png", "a.jpg", "contradict each other"),
    ],
)
def test_a_suffix_that_names_no_format_or_another_one_is_refused(
    asked: OutputFormat | None, output_file: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        choose_format(asked, output_file)
