from __future__ import annotations

from pathlib import Path
from types import ModuleType

import sketchbridge_client


def test_all_names_exactly_what_the_package_offers() -> None:
    offered = {
        name
        for name, member in vars(sketchbridge_client).items()
        if not name.startswith("_") and not isinstance(member, ModuleType) and name != "annotations"
    }
    assert set(sketchbridge_client.__all__) == offered


def test_all_names_nothing_twice() -> None:
    assert len(sketchbridge_client.__all__) == len(set(sketchbridge_client.__all__))


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(sketchbridge_client.__file__).with_name("py.typed").is_file()
