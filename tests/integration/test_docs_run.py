"""The blocks of the documentation, run as they are printed against the real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from sketchbridge_preprocess import SKETCH_METHODS, RequestOptions
from sketchbridge_server import TritonServer
from tests.conftest import PHOTOS, ROOT, SKETCHES

pytestmark = pytest.mark.server

CALLING = (ROOT / "docs" / "calling.md").read_text(encoding="utf-8")
CLIENT = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    """The text below each heading, by the heading."""
    return dict(re.findall(r"^##+ ([^\n]+)\n(.*?)(?=^##+ |\Z)", page, flags=re.MULTILINE | re.DOTALL))


def blocks(page: str, title: str, *only: str) -> list[Any]:
    """The fenced blocks of a page that are to be run; what cannot run here is fenced as `py` or `text`."""
    return [
        pytest.param(language, block, id=f"{title}: {section} ({language})")
        for section, body in sections(page).items()
        if section in only or not only
        for language, block in re.findall(r"^```(sh|python)\n(.*?)^```", body, flags=re.MULTILINE | re.DOTALL)
    ]


BLOCKS = [*blocks(README, "README", "Call it"), *blocks(CALLING, "calling"), *blocks(CLIENT, "client")]


def test_no_block_of_the_pages_about_calling_is_left_out() -> None:
    assert {"README: Call it (sh)", "README: Call it (python)"} <= {param.id for param in BLOCKS}
    for page, title in ((CALLING, "calling"), (CLIENT, "client")):
        assert len(re.findall(r"^```(?:sh|python)\n", page, flags=re.MULTILINE)) == len(blocks(page, title)) > 0


@pytest.mark.parametrize(("language", "block"), BLOCKS)
def test_what_the_documentation_shows_works_as_it_is_printed(
    server: TritonServer, tmp_path: Path, language: str, block: str
) -> None:
    if "curl" in block and shutil.which("curl") is None:
        pytest.skip("curl is not installed on this machine")
    (tmp_path / "drawings").mkdir()
    for name in ("sketch.png", "drawings/boot.png", "drawings/heel.png"):
        shutil.copy(SKETCHES[0], tmp_path / name)
    with Pillow.open(PHOTOS[0]) as photo:
        photo.save(tmp_path / "photo.jpg")
    before = {path: path.read_bytes() for path in pictures_in(tmp_path)}
    for port, url in (("8001", server.endpoints.grpc_url), ("8000", server.endpoints.http_url.removeprefix("http://"))):
        block = block.replace(f"127.0.0.1:{port}", url)
    command = [sys.executable, "-c", block] if language == "python" else ["bash", "-euo", "pipefail", "-c", block]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "SKETCHBRIDGE_URL": server.endpoints.grpc_url}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    made = [path for path in pictures_in(tmp_path) if before.get(path) != path.read_bytes()]
    assert made or not re.search(r"\.save\(| -o |> ", block)
    for picture in made:
        with Pillow.open(picture) as image:
            assert min(image.size) >= 100


def pictures_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in {".png", ".jpg", ".webp"}]


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_option_and_every_parameter_is_documented_with_its_default() -> None:
    for name, field in RequestOptions.__dataclass_fields__.items():
        if name != "method_parameters":
            assert re.search(rf"^\| `{name}` .*\| `?{field.default}`? \|", CALLING, flags=re.MULTILINE), name
    for method in SKETCH_METHODS.values():
        for name, one in method.parameters.items():
            default = "by the picture: .*" if one.default is None else f"{one.default:g}"
            row = rf"`{name}` \| {one.minimum:g} to {one.maximum:g} \| {default} \|"
            assert re.search(row, CALLING), name
