from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.conftest import ROOT

SCRIPTS = ("demo", "contact_sheet")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The scripts of `examples/` as modules, imported as Python does when it runs one of them."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    yield {name: importlib.import_module(name) for name in SCRIPTS}
    for name in SCRIPTS:
        del sys.modules[name]
