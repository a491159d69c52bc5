"""The judge of `sketchbridge quality`: what it learns, from which photos, and when it is used again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sketchbridge_training import DataInvalid
from sketchbridge_training.quality.attributes import bird_group, flower_species
from sketchbridge_training.quality.classifier import FEATURES, judge
from sketchbridge_training.quality.classifier_file import judge_for
from sketchbridge_training.quality.domains import Domain, domain_names, read_domain
from sketchbridge_training.quality.learning import LearningSettings, classes_of, learn, learning_steps
from sketchbridge_training.quality.measuring import load
from sketchbridge_training.quality.progress import Bar
from tests.training.quality_things import write_domains

BRIEF = LearningSettings(epochs=14, small_epochs=10, batch_size=12)


class Counter:
    def __init__(self) -> None:
        self.steps = 0

    def update(self, steps: int = 1) -> None:
        self.steps += steps


@contextlib.contextmanager
def unseen_bar(_title: str, _steps: int) -> Iterator[Bar]:
    yield Counter()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_domains(tmp_path_factory.mktemp("quality"))


@pytest.fixture(scope="module")
def domains(folders: tuple[Path, Path]) -> list[Domain]:
    data, splits = folders
    return [read_domain(name, data=data, splits=splits) for name in domain_names(data)]


def test_domains_are_folders_of_photos_split_by_their_lists(domains: list[Domain]) -> None:
    assert [domain.name for domain in domains] == ["pale", "ripe"]
    for domain in domains:
        assert len(domain.training) == 12
        assert [(photo.path.name, photo.identity) for photo in domain.held_out] == [("12.png", "a"), ("13.png", "b")]


def test_the_classifier_learns_two_domains_from_twelve_photos_each_and_knows_unseen_ones(domains: list[Domain]) -> None:
    counter = Counter()
    classifier = learn(domains, BRIEF, step_done=counter.update)
    assert counter.steps == learning_steps(domains, BRIEF) == 28
    for domain in domains:
        told = judge(classifier, load(domain.held_out))
        assert told.domains == [domain.name] * 2
        assert told.features.shape == (2, FEATURES)
        assert np.isfinite(told.features).all()


def test_the_same_seed_teaches_the_same_and_leaves_torchs_own_random_numbers_alone(domains: list[Domain]) -> None:
    settings = LearningSettings(epochs=1, small_epochs=1, batch_size=4)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (learn(domains, settings).state_dict() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_classifier_is_used_again_only_for_the_same_photos_split_and_settings(
    domains: list[Domain], tmp_path: Path
) -> None:
    path, settings = tmp_path / "classifier.pt", LearningSettings(epochs=1, small_epochs=1, batch_size=8)
    taught = judge_for(domains, settings, path, bar=unseen_bar)
    again = judge_for(domains, settings, path, bar=unseen_bar, must_exist=True)
    assert (taught.fresh, again.fresh, taught.sha256 == again.sha256) == (True, False, True)
    photos = load(domains[0].held_out)
    assert (judge(taught.classifier, photos).features == judge(again.classifier, photos).features).all()
    pale, ripe = domains
    other_split = [Domain(pale.name, pale.training[1:], (*pale.held_out, pale.training[0])), ripe]
    with pytest.raises(DataInvalid, match="was taught on other photos, another split"):
        judge_for(other_split, settings, path, bar=unseen_bar, must_exist=True)
    assert judge_for(other_split, settings, path, bar=unseen_bar).fresh
    assert [entry.name for entry in tmp_path.iterdir()] == ["classifier.pt"]


def test_a_file_that_is_no_classifier_is_refused_and_kept(domains: list[Domain], tmp_path: Path) -> None:
    path = tmp_path / "classifier.pt"
    for content in (b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(DataInvalid, match="damaged or no classifier"):
            judge_for(domains, BRIEF, path, bar=unseen_bar)
        assert path.read_bytes() == content
    path.unlink()
    brief = LearningSettings(epochs=1, small_epochs=1, batch_size=24)
    judge_for(domains, brief, path, bar=unseen_bar)
    torch.save({**torch.load(path, weights_only=True), "weights": {}}, path)
    with pytest.raises(DataInvalid, match="weights of another network"):
        judge_for(domains, brief, path, bar=unseen_bar)
    torch.save({"weights": {}}, path)
    with pytest.raises(DataInvalid, match="was not written by"):
        judge_for(domains, BRIEF, path, bar=unseen_bar)


def test_one_domain_alone_teaches_nothing(domains: list[Domain]) -> None:
    with pytest.raises(DataInvalid, match="at least two to tell apart"):
        classes_of(domains[:1])


@pytest.mark.parametrize(
    ("species", "group"),
    [
        ("TURKEY VULTURE", "bird of prey"),
        ("WILD TURKEY", "game bird"),
        ("CRANE HAWK", "bird of prey"),
        ("SANDHILL CRANE", "wader"),
        ("IBISBILL", "wader"),
        ("MAGPIE GOOSE", "waterfowl"),
        ("GREEN MAGPIE", "songbird"),
        ("LITTLE AUK", "seabird"),
        ("AUCKLAND SHAQ", None),
        ("MALABAR HORNBILL", None),
        ("TAWNY FROGMOUTH", None),
        ("GREAT TINAMOU", None),
    ],
)
def test_the_group_of_a_bird_is_read_from_whole_words_of_its_name(species: str, group: str | None) -> None:
    assert bird_group(f"valid/{species}/1.jpg") == group


def test_the_species_of_a_flower_is_its_folder_and_nothing_else() -> None:
    assert flower_species("dataset/train/tulips/1.jpg") == "tulips"
    assert flower_species("dataset/tulips/train/1.jpg") is None
    assert flower_species("tulips") is None
    assert bird_group("") is None
