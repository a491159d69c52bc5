"""Pictures in rows."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image


def test_pictures_stand_in_their_squares_unenlarged_and_centred(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    module = scripts["contact_sheet"]
    wide, small = Image.new("RGB", (200, 100), "red"), Image.new("RGB", (10, 10), "blue")
    rows = [module.Row("A title", [module.Cell(wide, "wide")]), module.Row("", [module.Cell(small, "")] * 2)]
    path = module.contact_sheet(rows, tmp_path / "sheet.png", side=50)
    with Image.open(path) as opened:
        sheet = np.asarray(opened)
    assert sheet.shape == (12 + (40 + 50 + 26 + 12) + (50 + 12), 12 + 2 * (50 + 12), 3)
    red = np.argwhere((sheet == (255, 0, 0)).all(axis=2))
    blue = np.argwhere((sheet == (0, 0, 255)).all(axis=2))
    assert (red.min(axis=0).tolist(), red.max(axis=0).tolist()) == ([12 + 40 + 12, 12], [12 + 40 + 36, 61])
    assert len(blue) == 200
    assert [one.name for one in tmp_path.iterdir()] == ["sheet.png"]


def test_a_folder_that_is_missing_is_an_error(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    module = scripts["contact_sheet"]
    row = module.Row("", [module.Cell(Image.new("RGB", (4, 4)), "")])
    with pytest.raises(OSError, match="sheet"):
        module.contact_sheet([row], tmp_path / "none" / "sheet.png")
