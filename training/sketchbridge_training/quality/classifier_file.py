"""The classifier on disk, with what it was taught on, so that it is used again only where that is fair."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sketchbridge_training.errors import DataInvalid
from sketchbridge_training.quality.classifier import Classifier
from sketchbridge_training.quality.domains import Domain, fingerprint
from sketchbridge_training.quality.learning import LearningSettings, classes_of, learn, learning_steps
from sketchbridge_training.quality.progress import BarMaker
from sketchbridge_training.writing import write_whole


@dataclass(frozen=True)
class Judge:
    """A classifier ready to judge, the digest of its file, and whether it was taught just now."""

    classifier: Classifier
    sha256: str
    fresh: bool


def judge_for(
    domains: Sequence[Domain],
    settings: LearningSettings,
    path: Path,
    *,
    must_exist: bool = False,
    bar: BarMaker,
) -> Judge:
    """The classifier in `path` if it was taught on these very photos, split and settings; else a new one, kept there.

    must_exist: refuse rather than teach. bar: shows that it learns, if it does.
    Raises DataInvalid if `path` is no classifier of ours, or must_exist and there is none for these photos.
    """
    wanted = {"settings": dataclasses.asdict(settings), "photos": fingerprint(domains)}
    known = _read(path) if path.exists() else None
    classifier = Classifier(classes_of(domains))
    if known is not None and known["taught"] == wanted:
        try:
            classifier.load_state_dict(known["weights"])
        except RuntimeError as exc:  # what torch raises for weights of another network
            raise DataInvalid(
                f"`{path}` holds the weights of another network than this version's. Move it away."
            ) from exc
        return Judge(classifier.eval(), _sha256(path), fresh=False)
    if must_exist:
        why = "is not there" if known is None else "was taught on other photos, another split or with other settings"
        raise DataInvalid(
            f"The classifier `{path}` {why}. A judge that may have seen the held-out photos is none; leave "
            "--classifier out to teach one."
        )
    with bar("classifier", learning_steps(domains, settings)) as progress:
        weights = learn(domains, settings, step_done=progress.update).state_dict()
    content = io.BytesIO()
    torch.save({"taught": wanted, "weights": weights}, content)
    write_whole(path, content.getvalue())
    classifier.load_state_dict(weights)  # as from a file, so that a later call finds the same features to the last bit
    return Judge(classifier.eval(), _sha256(path), fresh=True)


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as exc:  # the unpickler meets damage with almost any exception
        raise DataInvalid(f"`{path}` is damaged or no classifier: {type(exc).__name__}. Move it away.") from exc
    if not isinstance(content, Mapping) or not {"taught", "weights"} <= content.keys():
        raise DataInvalid(f"`{path}` was not written by `sketchbridge quality`. Name another --classifier or --out.")
    return content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
