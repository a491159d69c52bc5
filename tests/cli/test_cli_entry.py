from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sketchbridge_cli import main
from sketchbridge_cli.entry import COMMANDS, Command

HEAVY = {"grpc", "numpy", "PIL", "torch", "cv2", "onnx", "onnxruntime", "tritonclient", "sketchbridge_client"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([c.name, "--help"] for c in COMMANDS if not c.extra)]
)
def test_help_and_version_import_nothing_heavy(arguments: list[str], environment: dict[str, str]) -> None:
    code = (
        "import json, sys\nfrom sketchbridge_cli import main\n"
        f"status = main({arguments!r})\nprint()\nprint(json.dumps([status, sorted(sys.modules)]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    status, modules = json.loads(ran.stdout.splitlines()[-1])
    assert status == 0
    assert not HEAVY.intersection(modules)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_with_a_description_and_an_example(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command.name, "--help"]) == 0
    shown = capsys.readouterr().out
    usage, description, *_ = re.split(r"\n\n", shown, maxsplit=2)
    assert usage.startswith(f"usage: sketchbridge {command.name}")
    assert len(description.split()) > 4
    assert f"sketchbridge {command.name}" in shown.partition("examples:")[2]
    assert "\nexit status: 0 " in shown


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^ +{command.name}\b\s+{re.escape(command.summary)}", shown, re.MULTILINE)


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sketchbridge {version('sketchbridge')}\n"


def test_the_console_script_is_installed(environment: dict[str, str]) -> None:
    for call in ([str(Path(sys.executable).with_name("sketchbridge"))], [sys.executable, "-m", "sketchbridge_cli"]):
        ran = subprocess.run([*call, "--version"], env=environment, capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout[:13]) == (0, "sketchbridge ")


@pytest.mark.parametrize(
    "arguments",
    [[], ["painting"], ["paint"], ["--", "paint", "a.png"], ["models", "--nonsense"], ["models", "--tim", "3"]],
)
def test_a_wrong_call_is_exit_2_with_the_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: sketchbridge")


def stand_in_module(run: Any) -> ModuleType:
    module = ModuleType("stand_in_command")
    vars(module).update(add_arguments=lambda parser: None, run=run)
    return module


def raising(error: BaseException) -> Any:
    def run(arguments: object) -> int:
        raise error

    return run


def test_a_missing_package_is_named_with_the_extra_that_has_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")
    monkeypatch.setitem(sys.modules, "sketchbridge_export.command", stand_in_module(raising(missing)))
    assert main(["export"]) == 2
    assert capsys.readouterr().err == (
        "sketchbridge export: error: `sketchbridge export` needs the export extra (torch.nn is not installed): "
        "pip install 'sketchbridge[export]'\n"
    )


def test_a_package_missing_while_its_command_is_imported_is_named_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "sketchbridge_training.command":
                raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.delitem(sys.modules, "sketchbridge_training.command", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert main(["train"]) == 2
    assert "pip install 'sketchbridge[train]'" in capsys.readouterr().err


def test_a_fault_of_our_own_imports_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ModuleNotFoundError("No module named 'sketchbridge_export.no'", name="sketchbridge_export.no")
    monkeypatch.setitem(sys.modules, "sketchbridge_export.command", stand_in_module(raising(ours)))
    with pytest.raises(ModuleNotFoundError, match=r"sketchbridge_export\.no"):
        main(["export"])


def test_a_command_answers_with_its_own_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sketchbridge_server.command", stand_in_module(lambda _: 1))
    assert main(["serve"]) == 1


def test_a_command_may_have_a_flag_of_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    module = stand_in_module(lambda arguments: int(arguments.run))
    vars(module).update(add_arguments=lambda parser: parser.add_argument("--run"))
    monkeypatch.setitem(sys.modules, "sketchbridge_training.command", module)
    assert main(["train", "--run", "7"]) == 7


def test_ctrl_c_is_exit_130_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sketchbridge_server.command", stand_in_module(raising(KeyboardInterrupt())))
    assert main(["serve"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_sigterm_is_exit_143_after_the_command_has_cleaned_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cleaned = []

    def run(_: object) -> int:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            cleaned.append(True)
        return 0

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setitem(sys.modules, "sketchbridge_export.command", stand_in_module(run))
    assert main(["export"]) == 143
    assert cleaned == [True]
    assert capsys.readouterr().err == "\nterminated\n"
    assert signal.getsignal(signal.SIGTERM) is before
