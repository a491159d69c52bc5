"""What was measured, as JSON for scripts and as tables for docs/quality.md."""

from __future__ import annotations

import dataclasses
import os
import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sketchbridge_training.errors import DataInvalid
from sketchbridge_training.quality.domains import Domain
from sketchbridge_training.quality.generator import Artefact
from sketchbridge_training.quality.measuring import Figures

BEGIN = "<!-- made by `sketchbridge quality --docs`; changes here are lost -->"
END = "<!-- end of what is made -->"
_PACKAGES = ("sketchbridge", "torch", "onnxruntime", "numpy", "opencv-python-headless", "scikit-image")


def machine() -> dict[str, Any]:
    """What the figures were made on: the processor's name, its cores, and the versions of what computed them."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {package: found for package in _PACKAGES if (found := _version(package))},
    }


def record(domain: Domain, artefact: Artefact, figures: Figures) -> dict[str, Any]:
    """One domain's entry of quality.json."""
    return {
        "artefact": {"file": f"{domain.name}_generator/{artefact.version}/model.onnx", "sha256": artefact.sha256},
        "photos": {
            "training": len(domain.training),
            "held_out": len(domain.held_out),
            "held_out_identities": len({photo.identity for photo in domain.held_out}),
            "held_out_by_name": domain.by_name,
        },
        "figures": dataclasses.asdict(figures),
    }


def block(report: Mapping[str, Any]) -> str:
    """The generated part of docs/quality.md, markers included, from the content of quality.json."""
    domains: Mapping[str, Any] = report["domains"]
    made = report["machine"]
    versions = ", ".join(f"{package} {number}" for package, number in made["versions"].items())
    lines = [
        BEGIN,
        "",
        f"Measured {report['date']} on {made['cores']} cores of `{made['processor']}` with Python {made['python']}, "
        f"{versions}; seed {report['seed']}; classifier `{report['classifier']['sha256'][:12]}`:",
        "",
        "```text",
        report["command"],
        "```",
        "",
        "### Is it recognised?",
        "",
        *_table(
            (
                "domain",
                "held-out photos (identities)",
                "domain: photos",
                "domain: paintings",
                "change in points",
                "by hand",
                "kind: photos",
                "kind: paintings",
                "change in points",
            ),
            [_recognition(name, one) for name, one in domains.items()],
        ),
        "",
        "### Do the paintings, as a set, look like the photos?",
        "",
        *_table(
            ("domain", "KID x 1000: paintings", "KID x 1000: training photos", "spread", "colour"),
            [_distribution(name, one["figures"]) for name, one in domains.items()],
        ),
        "",
        "### Is it the very photo?",
        "",
        *_table(
            ("domain", "SSIM (another photo)", "PSNR in dB (another photo)", "gradient similarity (another photo)"),
            [_nearness(name, one["figures"]) for name, one in domains.items()],
        ),
        "",
        "### Does it keep to the lines?",
        "",
        *_table(
            (
                "domain",
                *(f"F1 `{method}`" for method in _methods(domains)),
                "F1 by hand",
                "another drawing",
                "photo redrawn",
                "precision, recall `canny`",
            ),
            [_lines_kept(name, one["figures"], _methods(domains)) for name, one in domains.items()],
        ),
        "",
        "### Pictures",
        "",
    ]
    for name, one in domains.items():
        lines += [
            f"`{name}`, {one['artefact']['file']}, sha256 `{one['artefact']['sha256'][:12]}`:",
            "",
            f"![Drawings and what the {name} generator paints from them](pictures/quality_{name}.png)",
            "",
        ]
    return "\n".join([*lines, END])


def card_block(name: str, report: Mapping[str, Any]) -> str:
    """The generated part of the model card docs/models/<name>.md, markers included."""
    one = report["domains"][name]
    figures = one["figures"]
    _, held_out, photos, paintings, change, by_hand, *kind = _recognition(name, one)
    _, kid, floor, spread, colour = _distribution(name, figures)
    _, ssim, psnr, gradients = _nearness(name, figures)
    trip = figures["by_method"]["canny"]
    hand_trip = figures["by_hand"]
    rows = [
        ("held-out photos (identities)", held_out),
        ("recognised as its domain: photos, paintings", f"{photos}, {paintings}; {change} points"),
        ("paintings of hand drawings recognised", by_hand),
        *(
            [("label within the domain: photos, paintings", f"{kind[0]}, {kind[1]}; {kind[2]} points")]
            * (kind[0] != "-")
        ),
        (
            "round-trip edge F1 (hand drawings)",
            f"{trip['f1']:.2f} ({hand_trip['f1']:.2f})" if hand_trip else f"{trip['f1']:.2f}",
        ),
        ("KID x 1000, and that of training photos", f"{kid}; {floor}"),
        ("spread, colour", f"{spread}, {colour}"),
        ("SSIM, PSNR in dB, gradient similarity (another photo)", f"{ssim}, {psnr}, {gradients}"),
    ]
    lines = [
        BEGIN,
        "",
        f"Of `{one['artefact']['file']}`, sha256 `{one['artefact']['sha256'][:12]}`, measured {report['date']}; "
        "what each figure means is in [quality.md](../quality.md).",
        "",
        *_table(("figure", "value"), rows),
        "",
        f"![Drawings and what the {name} generator paints from them](../pictures/quality_{name}.png)",
        "",
        END,
    ]
    return "\n".join(lines)


def with_block(page: str, made: str) -> str:
    """`page` with the part between the markers replaced. Raises DataInvalid if it does not have them once each."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise DataInvalid(f"The page does not have the two lines `{BEGIN}` and `{END}` once each, in this order.")
    return page[: page.index(BEGIN)] + made + page[page.index(END) + len(END) :]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _recognition(name: str, one: Mapping[str, Any]) -> list[str]:
    photos, figures = one["photos"], one["figures"]
    cells = [f"`{name}`", f"{photos['held_out']} ({photos['held_out_identities']})", *_shares(figures["domain"])]
    by_hand = figures["by_hand_domain"]
    cells.append("-" if by_hand is None else f"{by_hand['hits']} of {by_hand['count']}")
    kind = figures["kind"]
    return cells + (["-", "-", "-"] if kind is None else _shares(kind))


def _shares(recognition: Mapping[str, Any]) -> list[str]:
    def share(one: Mapping[str, Any]) -> str:
        return f"{one['hits'] / one['count']:.1%} ({one['low']:.0%} to {one['high']:.0%})"

    change = recognition["difference"]
    return [
        share(recognition["photos"]),
        share(recognition["paintings"]),
        f"{100 * change['value']:+.1f} ({round(100 * change['low']):+d} to {round(100 * change['high']):+d})",
    ]


def _distribution(name: str, figures: Mapping[str, Any]) -> list[str]:
    def thousands(one: Mapping[str, Any]) -> str:
        return f"{1000 * one['mean']:.1f} ± {1000 * one['deviation']:.1f}"

    (painted, real), (colour, real_colour) = figures["spread"], figures["colour"]
    return [
        f"`{name}`",
        thousands(figures["kid"]),
        thousands(figures["kid_floor"]),
        f"{painted / real:.2f}",
        f"{colour / real_colour:.2f} ({colour:.0f} of {real_colour:.0f})",
    ]


def _nearness(name: str, figures: Mapping[str, Any]) -> list[str]:
    near, far = figures["similarity"], figures["similarity_chance"]
    return [
        f"`{name}`",
        f"{near['ssim']:.3f} ({far['ssim']:.3f})",
        f"{near['psnr_db']:.1f} ({far['psnr_db']:.1f})",
        f"{near['gradients']:.3f} ({far['gradients']:.3f})",
    ]


def _methods(domains: Mapping[str, Any]) -> list[str]:
    return list(next(iter(domains.values()))["figures"]["by_method"])


def _lines_kept(name: str, figures: Mapping[str, Any], methods: Sequence[str]) -> list[str]:
    by_hand, canny = figures["by_hand"], figures["by_method"]["canny"]
    return [
        f"`{name}`",
        *(f"{figures['by_method'][method]['f1']:.2f}" for method in methods),
        "-" if by_hand is None else f"{by_hand['f1']:.2f} (of {by_hand['count']})",
        f"{figures['chance']['f1']:.2f}",
        f"{figures['redrawn']['f1']:.2f}",
        f"{canny['precision']:.2f}, {canny['recall']:.2f}",
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # OpenCV has several
        return None


def _processor() -> str:
    try:
        told = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        told = None
    return told.group(1).strip() if told else platform.processor() or platform.machine()
