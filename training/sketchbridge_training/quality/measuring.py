"""All figures of one generator, on photos it never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from sketchbridge_preprocess import SKETCH_METHODS, Image, Size
from sketchbridge_training.photos import load_photo
from sketchbridge_training.quality.classifier import Classifier, Judgement, judge
from sketchbridge_training.quality.diversity import colourfulness, mean_pairwise_distance
from sketchbridge_training.quality.domains import Domain, Photo
from sketchbridge_training.quality.generator import Generator
from sketchbridge_training.quality.intervals import Difference, Share, paired_difference, wilson
from sketchbridge_training.quality.kid import KernelDistance, kernel_distance
from sketchbridge_training.quality.round_trip import EdgeMatch, edge_match, served_lines
from sketchbridge_training.quality.similarity import Similarity, similarity

_T = TypeVar("_T")

SERVED_METHOD = "canny"
OTHER_METHODS = tuple(method for method in SKETCH_METHODS if method != SERVED_METHOD)
_OTHER_BLURS = tuple(
    factor * (SKETCH_METHODS[SERVED_METHOD].parameters["blur_sigma"].default or 1.0) for factor in (0.75, 1.25)
)
_PHOTOS_OF_OTHER_METHODS = 40
_PHOTOS_OF_THE_FLOOR = 300
_EQUAL_DB = 100.0  # just under what two pictures reach that differ by one level in one value


@dataclass(frozen=True)
class Recognition:
    """How often the classifier gives the right label: to held-out photos, and to paintings from their drawings."""

    labels: tuple[str, ...]
    photos: Share
    paintings: Share
    difference: Difference


@dataclass(frozen=True)
class RoundTrip:
    """Mean edge match over `count` drawings, painted and drawn again."""

    count: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Figures:
    """Everything that is measured of one generator.

    kind: as `domain`, for the labels within the domain; None where there are none. kid_floor: of training photos.
    chance: the same figure for another held-out photo in the painting's place. redrawn: of the photo itself, blurred a
    quarter less and more before it is drawn. by_method: round trips. by_hand: those of hand drawings; by_hand_domain:
    how many of their paintings are recognised; None without any.
    spread, colour: of paintings and of photos.
    """

    domain: Recognition
    kind: Recognition | None
    kid: KernelDistance
    kid_floor: KernelDistance
    similarity: Similarity
    similarity_chance: Similarity
    by_method: Mapping[str, RoundTrip]
    by_hand: RoundTrip | None
    by_hand_domain: Share | None
    chance: RoundTrip
    redrawn: RoundTrip
    spread: tuple[float, float]
    colour: tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """The figures, and the pictures they were measured on, in the order of the domain's held-out photos."""

    figures: Figures
    drawings: list[Image]
    paintings: list[Image]
    photos: list[Image]


def load(photos: Sequence[Photo]) -> list[Image]:
    """(256, 256, 3) RGB uint8 each. Raises DataInvalid, naming the file, if one can't be read."""
    return [load_photo(photo.path, Size(256, 256)) for photo in photos]


def steps_of(domain: Domain, by_hand: Mapping[str, Image]) -> int:
    """How often `measure` will call `step`."""
    others = len(_evenly(domain.held_out, _PHOTOS_OF_OTHER_METHODS)) * len(OTHER_METHODS)
    return 2 * len(domain.held_out) + others + len(by_hand)


def measure(
    domain: Domain,
    generator: Generator,
    classifier: Classifier,
    *,
    by_hand: Mapping[str, Image],
    seed: int,
    step: Callable[[], object] = lambda: None,
) -> Measured:
    """Draw every held-out photo as it is served, paint the drawings, and measure the paintings.

    by_hand: drawings ready for the generator. step: called after each piece of work; see `steps_of`.
    Raises DataInvalid if a photo can't be read, or fewer than two are held out.
    """
    photos = load(domain.held_out)
    drawings: list[Image] = []
    paintings: list[Image] = []
    for photo in photos:
        drawings.append(served_lines(photo))
        paintings.append(generator.paint(drawings[-1]))
        step()
    similarities, trips, chances, redrawn = [], [], [], []
    for number, (photo, drawing, painting) in enumerate(zip(photos, drawings, paintings, strict=True)):
        other = _another(domain.held_out, number)
        similarities.append((similarity(painting, photo), similarity(photos[other], photo)))
        trips.append(edge_match(drawing, served_lines(painting)))
        chances.append(edge_match(drawing, drawings[other]))
        redrawn += [edge_match(drawing, served_lines(photo, blur_sigma=sigma)) for sigma in _OTHER_BLURS]
        step()
    by_method = {SERVED_METHOD: _mean_trip(trips)}
    for method in OTHER_METHODS:
        matches = []
        for photo in _evenly(photos, _PHOTOS_OF_OTHER_METHODS):
            first = served_lines(photo, method=method)
            matches.append(edge_match(first, served_lines(generator.paint(first), method=method)))
            step()
        by_method[method] = _mean_trip(matches)
    hand_matches, hand_paintings = [], []
    for drawing in by_hand.values():
        hand_paintings.append(generator.paint(drawing))
        hand_matches.append(edge_match(drawing, served_lines(hand_paintings[-1])))
        step()
    seen = judge(classifier, photos)
    painted = judge(classifier, paintings)
    training = judge(classifier, load(_evenly(domain.training, _PHOTOS_OF_THE_FLOOR)))
    figures = Figures(
        domain=_recognised(
            classifier.classes.domains,
            [domain.name] * len(photos),
            seen.domains,
            painted.domains,
            domain.held_out,
            seed=seed,
        ),
        kind=_kind(domain, classifier, seen, painted, seed=seed),
        kid=kernel_distance(painted.features, seen.features, seed=seed, paired=True),
        kid_floor=kernel_distance(training.features, seen.features, seed=seed),
        similarity=_mean_similarity([near for near, _ in similarities]),
        similarity_chance=_mean_similarity([far for _, far in similarities]),
        by_method=by_method,
        by_hand=_mean_trip(hand_matches) if hand_matches else None,
        by_hand_domain=_share_of(domain.name, classifier, hand_paintings),
        chance=_mean_trip(chances),
        redrawn=_mean_trip(redrawn),
        spread=(mean_pairwise_distance(painted.features), mean_pairwise_distance(seen.features)),
        colour=(
            float(np.mean([colourfulness(painting) for painting in paintings])),
            float(np.mean([colourfulness(photo) for photo in photos])),
        ),
    )
    return Measured(figures, drawings, paintings, photos)


def _recognised(
    labels: tuple[str, ...],
    truths: Sequence[str],
    of_photos: Sequence[str],
    of_paintings: Sequence[str],
    shown: Sequence[Photo],
    *,
    seed: int,
) -> Recognition:
    before = [label == truth for label, truth in zip(of_photos, truths, strict=True)]
    after = [label == truth for label, truth in zip(of_paintings, truths, strict=True)]
    return Recognition(
        labels,
        wilson(sum(before), len(before)),
        wilson(sum(after), len(after)),
        paired_difference(after, before, [photo.identity for photo in shown], seed=seed),
    )


def _kind(
    domain: Domain, classifier: Classifier, seen: Judgement, painted: Judgement, *, seed: int
) -> Recognition | None:
    labels = classifier.classes.attributes.get(domain.name, ())
    known = [number for number, photo in enumerate(domain.held_out) if photo.attribute in labels]
    if not known:
        return None
    shown = [domain.held_out[number] for number in known]
    return _recognised(
        labels,
        [photo.attribute or "" for photo in shown],
        [seen.attributes[domain.name][number] for number in known],
        [painted.attributes[domain.name][number] for number in known],
        shown,
        seed=seed,
    )


def _share_of(name: str, classifier: Classifier, paintings: Sequence[Image]) -> Share | None:
    if not paintings:
        return None
    return wilson(judge(classifier, paintings).domains.count(name), len(paintings))


def _mean_trip(matches: Sequence[EdgeMatch]) -> RoundTrip:
    mean = np.mean([(match.precision, match.recall, match.f1) for match in matches], axis=0)
    return RoundTrip(len(matches), *(float(value) for value in mean))


def _mean_similarity(values: Sequence[Similarity]) -> Similarity:
    """PSNR counts at most 100 dB: among people's photos are copies, and one infinity would be the mean of all."""
    mean = np.mean([(value.ssim, min(value.psnr_db, _EQUAL_DB), value.gradients) for value in values], axis=0)
    return Similarity(*(float(value) for value in mean))


def _another(photos: Sequence[Photo], number: int) -> int:
    """Which photo to set beside that one for chance: far off in the list, and of another identity if there is one."""
    count = len(photos)
    far_off = [(number + count // 2 + further) % count for further in range(count)]
    own = photos[number].identity
    return next((other for other in far_off if photos[other].identity != own), far_off[0])


def _evenly(things: Sequence[_T], most: int) -> list[_T]:
    return [things[number * len(things) // most] for number in range(most)] if len(things) > most else list(things)
