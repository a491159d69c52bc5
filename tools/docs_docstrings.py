"""An extension of griffe, which reads the code for the reference: turns the house's docstrings into Markdown.

Our docstrings are prose. What is more than prose in them, and would run together on a page, is laid out:

- "name: text." of a parameter, a field or an attribute becomes a point of a list, wherever it stands in a paragraph;
- lines that begin with `>>>`, indented lines and columns that are aligned with spaces become blocks of code;
- "See Client.paint." becomes a link.
"""

# ruff: noqa: INP001  mkdocs loads it by its path; it is in no package

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import griffe

_ENDS = re.compile(r"(Attributes|Raises|Source|Sources|The rest|Times)\b")  # a sentence that is of no name
_COLUMNS = re.compile(r"^\s*\S+( \S+)*\s{3,}\S")
_SEE = re.compile(r"\bSee (\w+)\.(\w+)\.")


class HouseStyle(griffe.Extension):
    """Lays out each docstring once the whole package has been read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called by griffe with the package."""
        read = list(_all_in(pkg))
        paths = {one.name: one.path for one in read if isinstance(one, griffe.Class)}
        for one in read:
            if one.docstring is not None:
                one.docstring.value = markdown_of(one.docstring.value, _names(one), paths)


def _all_in(where: griffe.Object) -> Iterator[griffe.Object]:
    yield where
    for member in where.members.values():
        if not isinstance(member, griffe.Alias):
            yield from _all_in(member)


def _names(what: griffe.Object) -> set[str]:
    """What the docstring may say something of: parameters, and for a class its fields and attributes too."""
    if isinstance(what, griffe.Function):
        return {parameter.name.lstrip("*") for parameter in what.parameters}
    if isinstance(what, griffe.Class):
        inherited = {name for base in what.resolved_bases for name in base.members}
        return {*what.members, *inherited, *(parameter.name for parameter in what.parameters)}
    return set()


def markdown_of(docstring: str, names: set[str], paths: Mapping[str, str]) -> str:
    """The docstring as Markdown.

    names: those that "name: text." may begin with. paths: of the classes, by their names.
    """
    paragraphs = re.split(r"\n\s*\n", docstring.strip("\n"))
    return "\n\n".join(_paragraph(paragraph, names, paths) for paragraph in paragraphs)


def _paragraph(paragraph: str, names: set[str], paths: Mapping[str, str]) -> str:
    lines = paragraph.splitlines()
    if lines[0].startswith(">>>"):
        return "\n".join(["```pycon", *lines, "```"])
    if len(lines) > 1 and sum(bool(_COLUMNS.match(line)) for line in lines) > len(lines) / 2:
        return "\n".join(["```text", *textwrap.dedent(paragraph).splitlines(), "```"])
    if any(line.startswith("    ") for line in lines):
        return "\n".join(["```python", *textwrap.dedent(paragraph).splitlines(), "```"])
    text = _SEE.sub(
        lambda see: f"See [{see[1]}.{see[2]}][{paths[see[1]]}.{see[2]}]." if see[1] in paths else see[0],
        " ".join(line.strip() for line in lines),
    )
    return _points(text, names)


def _points(text: str, names: set[str]) -> str:
    """Each "name: text." or "name, name: text." on a line of its own."""
    if not names:
        return text
    one = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    said = re.compile(rf"(?:^|(?<=[.;:] ))((?:{one})(?:, (?:{one}))*): ")
    starts = list(said.finditer(text))
    if not starts:
        return text
    parts = [text[: starts[0].start()].strip()] if starts[0].start() else []
    points, after = [], ""
    for start, following in zip(starts, [*starts[1:], None], strict=True):
        words = text[start.end() : following.start() if following else len(text)].strip()
        if following is None:
            words, after = _split_off(words)
        points.append(f"- {', '.join(f'`{name}`' for name in start[1].split(', '))}: {words}")
    parts.append("\n".join(points))
    return "\n\n".join([*parts, *([after] if after else [])])


def _split_off(words: str) -> tuple[str, str]:
    """The last point, and what follows it without being of it, such as "Raises ..."."""
    sentences = re.split(r"(?<=\.) (?=[A-Z])", words)
    for number, sentence in enumerate(sentences[1:], start=1):
        if _ENDS.match(sentence):
            return " ".join(sentences[:number]), " ".join(sentences[number:])
    return words, ""
