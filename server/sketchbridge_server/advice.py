"""Triton's reasons for not loading a model, in plain words and with what to do."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# The first pattern that is found in a reason decides; groups of the pattern fill the advice.
_ADVICE: tuple[tuple[str, str], ...] = (
    (
        r"depends on '(?P<model>[^']+)' which has no loaded version",
        "It is an ensemble: once {model} loads, it will too.",
    ),
    (
        r"ensemble \S+ contains models that are not available[^:]*: *(?P<model>[^\s,]+)",
        "It is an ensemble: put {model} into the repository, or mend what is there.",
    ),
    (
        r"unable to find backend library for backend '(?P<backend>[^']+)'",
        "This Triton has no {backend} backend. Serve it in NVIDIA's image, or without --model-config-name.",
    ),
    (
        r"No module named '(?P<module>[^']+)'",
        "Install {module} into the Python environment that runs `sketchbridge serve`.",
    ),
    (
        r"failed to read text proto|Error parsing text-format",
        "Its config.pbtxt has a mistake at the named line and column.",
    ),
    (
        r"Could not determine backend|failed to open text file",
        "Its folder needs a config.pbtxt; if it is no model at all, move it out of the repository.",
    ),
    (
        r"at least one version must be available",
        "Its folder needs a version folder such as `1/` with the model's files in it.",
    ),
    (
        r"\.(?:onnx|xml|bin)\b.*(?:does not exist|doesn't exist|No such file)",
        "The version folder lacks the model's file; export it again.",
    ),
    (
        r"cannot (?:read|load|compile) (?P<repository>.+?)/[^/]+/\d+/[^/]+?: ",
        "If `sketchbridge verify {repository} --no-paint` calls its files changed, export it again.",
    ),
    (
        r"No space left on device|unable to create shared memory|Failed to initialize Python stub",
        "Look whether /dev/shm is full (`df /dev/shm`; in a container, raise --shm-size).",
    ),
)

# Where in OpenVINO's own sources it noticed, before what it noticed.
_OPENVINO_SOURCES = re.compile(r"(?:Exception from|Check '.*' failed at) \S+\.[ch]pp:\d+:\s*")


def explain(reason: str) -> str:
    """One short paragraph for a reason: its first lines without the runtime's own places, then what to do."""
    text = re.split(r"\s*\nAt:\n", reason.strip(), maxsplit=1)[0]
    text = _OPENVINO_SOURCES.sub("", text)
    for kind in ("Internal: ", "Invalid argument: ", "Not found: ", "Unavailable: "):
        text = text.removeprefix(kind)
    for pattern, advice in _ADVICE:
        match = re.search(pattern, reason, re.DOTALL)
        if match is not None:
            if "depends on" in pattern:
                text = match.group(0)  # the rest repeats that model's own reason
            named = {
                name: shlex.quote(value) if name == "repository" else value for name, value in match.groupdict().items()
            }
            return f"{text.rstrip('. ;!')}. {advice.format(**named)}"
    return text


def explain_all(reasons: Mapping[str, str]) -> str:
    """The message for models that did not load: first those with a fault of their own, then those that need them."""
    ordered = sorted(reasons, key=lambda name: ("depends on" in reasons[name], name))
    lines = [f"  {name}: {explain(reasons[name])}" for name in ordered]
    count = f"{len(ordered)} model" + ("s" if len(ordered) > 1 else "")
    return "\n".join([f"{count} could not be loaded, so nothing is served:", *lines])
