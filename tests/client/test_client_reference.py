from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from dataclasses import fields
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import sketchbridge_client
from sketchbridge_client import AsyncClient, Client, Hedge, Retry, SketchbridgeError, Tls
from tests.conftest import ROOT

BUILD = "import sys; from mkdocs.__main__ import cli; cli(sys.argv[1:])"
PUBLIC = {name: getattr(sketchbridge_client, name) for name in sketchbridge_client.__all__}
ERRORS = [one for one in PUBLIC.values() if isinstance(one, type) and issubclass(one, SketchbridgeError)]


def verbs(client: type) -> dict[str, Any]:
    return {name: member for name, member in vars(client).items() if not name.startswith("_") and callable(member)}


class Entries(HTMLParser):
    """What stands below each heading that has an anchor, up to the next such heading."""

    def __init__(self) -> None:
        super().__init__()
        self.words: dict[str, list[str]] = {}
        self._entry: str | None = None
        self._in_prose = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if re.fullmatch("h[1-6]", tag):
            self._entry = found.get("id")
        elif tag in {"p", "li"}:
            self._in_prose = True

    def handle_endtag(self, tag: str) -> None:
        if tag in {"p", "li"}:
            self._in_prose = False

    def handle_data(self, data: str) -> None:
        if self._entry and self._in_prose and data.strip():
            self.words.setdefault(self._entry, []).append(data.strip())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole documentation, built as `make docs` builds it: a warning is an error."""
    if not (find_spec("mkdocs") and find_spec("mkdocstrings") and find_spec("material")):
        pytest.skip("mkdocs-material and mkdocstrings are not installed on this machine")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-c", BUILD, "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def entries(site: Path) -> dict[str, str]:
    reader = Entries()
    for page in (site / "reference").glob("*.html"):
        reader.feed(page.read_text(encoding="utf-8"))
    return {name: " ".join(words) for name, words in reader.words.items()}


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_has_an_entry_in_the_reference_that_says_something(
    name: str, entries: dict[str, str]
) -> None:
    thing = PUBLIC[name]
    where = {f"sketchbridge_client.{name}", f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', '')}"}
    assert any(len(entries.get(one, "")) > 10 for one in where), f"no ::: {min(where)} in docs/reference/"


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_method_of_a_client_has_an_entry_in_the_reference(client: type, entries: dict[str, str]) -> None:
    for name in verbs(client):
        assert entries.get(f"sketchbridge_client.{client.__name__}.{name}"), name


def test_what_a_docstring_says_of_each_name_is_a_point_of_its_own_in_the_reference(site: Path) -> None:
    for page, names in {
        "client": ["url", "timeout_s", "sketch", "output_format</code>, <code>quality"],
        "errors": ["available", "model</code>, <code>request_id</code>, <code>status"],
        "options": [one.name for one in fields(Tls) if one.name not in {"certificate", "key"}],
    }.items():
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        for name in names:
            assert f"<li><code>{name}</code>: " in text, name


def test_the_blocking_client_and_the_asyncio_one_have_the_same_verbs_with_the_same_parameters() -> None:
    def parameters(client: type) -> dict[str, list[tuple[str, Any, Any]]]:
        return {
            name: [(one.name, one.kind, one.default) for one in inspect.signature(member).parameters.values()]
            for name, member in [*verbs(client).items(), ("__init__", client.__init__)]  # type: ignore[misc]
        }

    assert parameters(Client) == parameters(AsyncClient)


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//"""
        r"""|<link\b[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon)\b[^>]*\bhref=["']?(?:https?:)?//"""
    )
    pages = list(site.rglob("*.html"))
    assert pages
    for page in pages:
        assert not loads.search(page.read_text(encoding="utf-8")), page.name


def test_no_link_of_the_site_leads_out_of_it_or_nowhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for target in re.findall(r'<a[^>]* href="(?!https?:|mailto:|#|/)([^"#]+)', page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(site)} links to {target}"


def test_every_setting_and_every_error_is_in_the_pages_that_people_wrote() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    settings = [name for name in inspect.signature(Client).parameters if name != "url"]
    names = [*settings, *(one.name for kind in (Retry, Hedge, Tls) for one in fields(kind))]
    for name in [*names, "Retry", "NEVER", "Hedge", "Tls", "ClientMetrics"]:
        assert re.search(rf"`{name}`|\b{name}=", pages), f"`{name}` is in no page"
    for error in ERRORS:
        assert re.search(rf"\b{error.__name__}\b", pages), error.__name__
