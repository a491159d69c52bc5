"""A hook of mkdocs: links to files outside docs/ stay links on the code host and become plain text in the site.

The site holds only docs/, so a link to `../training/splits/cats.csv` would lead nowhere in it. Only files and folders
that exist are treated so; any other link is left for mkdocs to complain of.
"""

# ruff: noqa: INP001  mkdocs loads it by its path; it is in no package

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Called by mkdocs with the text of each page."""
    docs = Path(config.docs_dir).resolve()
    here = Path(page.file.abs_src_path).resolve().parent

    def text_of(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        outside = docs.parent in target.parents and docs not in (target, *target.parents)
        return link[1] if outside and target.exists() else link[0]

    return _LINK.sub(text_of, markdown)
