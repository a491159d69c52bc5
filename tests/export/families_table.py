"""The families table of docs/export.md, made from the records. To print it: python -m tests.export.families_table."""

from __future__ import annotations

from sketchbridge_export.families import FAMILIES, Family

HEADER = "| family | recognised by | exact | assumed: no checkpoint says it | norm by default | dropout | pixels |"
RULE = "|---|---|---|---|---|---|---|"


def table() -> str:
    """Markdown, one row a family."""
    return "\n".join([HEADER, RULE, *map(_row, FAMILIES.values())])


def _row(family: Family) -> str:
    cells = (
        f"`{family.name}`: {family.title}",
        family.recognised_by,
        family.exact,
        family.assumed,
        family.norm,
        family.dropout,
        family.native_size.replace("**", "^").replace("2 ^ ", "2^"),
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


if __name__ == "__main__":
    print(table())  # noqa: T201 - that is what it is for
