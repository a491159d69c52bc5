from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sketchbridge_export.errors import OptionInvalid, RepositoryError
from sketchbridge_export.gpu_config import Plans
from sketchbridge_export.manifest import file_sha256
from sketchbridge_export.repository import Published, check_repository, publish, staging

EXPORTER = """
import sys, pathlib
from sketchbridge_export.manifest import file_sha256
from sketchbridge_export.repository import publish, staging
repository = pathlib.Path(sys.argv[1])
sys.stdin.readline()
for turn in range(10):
    with staging(repository) as stage:
        folder = stage / "version"
        folder.mkdir()
        (folder / "model.onnx").write_text(f"{sys.argv[2]} {turn}")
        publish(folder, name="shoes", repository=repository, sha256={"model.onnx": file_sha256(folder / "model.onnx")})
"""

ALL = ["decode", "encode", "shoes", "shoes_generator", "shoes_roundtrip", "sketch"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "models"


def put(
    repository: Path,
    name: str = "shoes",
    content: str = "weights",
    *,
    kinds: Collection[str] = (),
    serve: str | None = None,
    plans: Plans | None = None,
) -> Published:
    with staging(repository) as stage:
        folder = stage / "version"
        folder.mkdir()
        (folder / "model.onnx").write_text(content)
        (folder / "manifest.json").write_text("{}")
        return publish(
            folder,
            name=name,
            repository=repository,
            sha256={"model.onnx": file_sha256(folder / "model.onnx")},
            kinds=[*kinds, *(["tensorrt"] if plans else [])],
            serve=serve,
            plans=plans,
        )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_first_export_makes_a_repository_that_can_be_served(repository: Path) -> None:
    published = put(repository)
    assert (published.version, published.path) == (1, repository / "shoes_generator" / "1")
    assert published.added == ("decode", "encode", "sketch", "shoes_generator", "shoes", "shoes_roundtrip")
    assert names(repository) == ALL
    assert names(repository / "shoes_generator") == ["1", "config.pbtxt"]
    assert names(published.path) == ["manifest.json", "model.onnx"]
    for name in ("shoes", "shoes_roundtrip", "shoes_generator"):
        config = text_format.Parse((repository / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        assert config.name == name
    for ensemble in ("shoes", "shoes_roundtrip"):  # Git keeps no empty folders
        assert (
            json.loads((repository / ensemble / "1" / "manifest.json").read_text())["ensemble_of"] == "shoes_generator"
        )


def test_the_second_export_adds_a_version_and_touches_nothing_else(repository: Path) -> None:
    put(repository)
    for model in ("shoes_generator", "decode"):
        config = repository / model / "config.pbtxt"
        config.write_text(config.read_text() + "# tuned by its operator\n")
    before = tree(repository)
    published = put(repository, content="better weights")
    assert (published.version, published.added) == (2, ())
    after = tree(repository)
    assert {key: after[key] for key in before} == before
    assert set(after) - set(before) == {"shoes_generator/2/manifest.json", "shoes_generator/2/model.onnx"}


def test_versions_count_on_from_the_highest_even_after_gaps(repository: Path) -> None:
    put(repository)
    (repository / "shoes_generator" / "1").rename(repository / "shoes_generator" / "9")
    assert put(repository).version == 10


def test_another_name_shares_the_building_blocks(repository: Path) -> None:
    put(repository)
    assert put(repository, "cats").added == ("cats_generator", "cats", "cats_roundtrip")


def test_ensembles_around_an_older_encode_ask_it_for_no_more_than_it_has(repository: Path) -> None:
    put(repository)
    encode = repository / "encode" / "config.pbtxt"
    config = text_format.Parse(encode.read_text(), model_config_pb2.ModelConfig())
    assert config.output.pop().name == "timings"
    encode.write_text(text_format.MessageToString(config))
    put(repository, "cats")
    for name, expected in (("shoes", True), ("cats", False), ("cats_roundtrip", False)):
        assert ("timings" in (repository / name / "config.pbtxt").read_text()) is expected


def test_an_encode_that_can_not_be_read_is_refused_before_the_long_work(repository: Path) -> None:
    put(repository)
    (repository / "encode" / "config.pbtxt").write_text("output [")
    with pytest.raises(RepositoryError, match="is no model configuration"):
        check_repository(repository, "cats")


def test_nothing_is_left_beside_the_repository(repository: Path) -> None:
    put(repository)
    assert names(repository.parent) == ["models"]


def test_a_failure_before_publishing_leaves_nothing(repository: Path) -> None:
    def interrupted() -> None:
        with staging(repository) as stage:
            (stage / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(repository.parent) == ["models"]
    assert names(repository) == []


@pytest.mark.parametrize("failing", ["encode", "shoes_generator", "shoes", "shoes_roundtrip"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "ctrl-c"])
def test_a_failure_between_the_renames_takes_back_those_before(
    failing: str, error: BaseException, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == repository / failing:
            raise error
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    expected = RepositoryError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        put(repository)
    assert names(repository) == []
    assert names(repository.parent) == ["models"]
    monkeypatch.undo()
    assert put(repository).version == 1
    assert names(repository) == ALL


def test_an_ensemble_appears_after_its_steps(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, order = Path.rename, []

    def watch(self: Path, target: Path) -> Path:
        if target.parent == repository:
            order.append(target.name)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watch)
    put(repository)
    assert set(order[:3]) == {"decode", "encode", "sketch"}
    assert order[3:] == ["shoes_generator", "shoes", "shoes_roundtrip"]


def test_exports_at_the_same_time_get_a_version_each(repository: Path) -> None:
    command = [sys.executable, "-c", EXPORTER, str(repository)]
    exporters = [subprocess.Popen([*command, str(index)], stdin=subprocess.PIPE) for index in range(2)]
    for exporter in exporters:
        assert exporter.stdin is not None
        with exporter.stdin as signal:
            signal.write(b"go\n")
    assert [exporter.wait(timeout=120) for exporter in exporters] == [0, 0]
    versions = [repository / "shoes_generator" / str(n) / "model.onnx" for n in range(1, 21)]
    assert {path.read_text() for path in versions} == {f"{index} {turn}" for index in range(2) for turn in range(10)}
    assert names(repository) == ALL
    assert names(repository.parent) == ["models"]


def test_what_a_killed_export_left_is_removed_and_a_living_ones_folder_is_not(repository: Path) -> None:
    dead = repository.parent / ".models-staging-dead"
    (dead / "version").mkdir(parents=True)
    with staging(repository) as alive:
        (alive / "work").write_text("going on")
        assert not dead.exists()
        put(repository)
        assert (alive / "work").read_text() == "going on"


def test_leftovers_are_told_by_their_name_and_only_folders_are_removed(tmp_path: Path) -> None:
    repository = tmp_path / "mo[d]els"
    for name in (".mo[d]els-staging-dead", ".models-staging-other"):
        (tmp_path / name).mkdir()
    (tmp_path / ".mo[d]els-staging-file").touch()
    put(repository)
    assert names(tmp_path) == [".mo[d]els-staging-file", ".models-staging-other", "mo[d]els"]


def test_a_repository_that_cannot_be_looked_at_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="can't be read: File name too long"):
        check_repository(tmp_path / (300 * "x"), "shoes")


def test_a_repository_whose_parent_is_not_writable_stages_where_triton_does_not_look(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(repository)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != repository.parent and access(path, mode))
    with staging(repository) as stage:
        assert stage.parent.parent == repository
        assert not stage.name.isdecimal()
    assert put(repository).version == 2


def test_a_file_that_changed_after_it_was_compared_is_not_published(repository: Path) -> None:
    with staging(repository) as stage:
        (stage / "version").mkdir()
        (stage / "version" / "model.onnx").write_text("other")
        with pytest.raises(RepositoryError, match="changed on disk"):
            publish(stage / "version", name="shoes", repository=repository, sha256={"model.onnx": "0" * 64})
    assert names(repository) == []


def test_a_model_that_belongs_to_someone_else_is_not_extended(repository: Path) -> None:
    (repository / "shoes").mkdir(parents=True)
    (repository / "shoes" / "config.pbtxt").write_text('backend: "python"\n')
    with pytest.raises(RepositoryError, match="belongs to another model"):
        put(repository)
    assert names(repository) == ["shoes"]


def test_a_file_in_the_repositorys_place_and_a_bad_name_are_refused(repository: Path) -> None:
    with pytest.raises(OptionInvalid, match="building block"):
        put(repository, "decode")
    (repository.parent / "file").write_text("")
    with pytest.raises(RepositoryError, match="can't be written"):
        put(repository.parent / "file")


OLD, NEW = Plans({"9.0": "model.sm90.trt11.4.0.plan"}), Plans({"9.0": "model.sm90.trt11.5.0.plan"})


@pytest.mark.parametrize("before", [None, OLD], ids=["a new model", "a model without and then with plans"])
def test_plans_get_a_configuration_for_gpus_that_always_names_the_newest(
    repository: Path, before: Plans | None
) -> None:
    if before is not None:
        put(repository)
        put(repository, plans=before)
    put(repository, plans=NEW)
    config = repository / "shoes_generator" / "configs" / "gpu.pbtxt"
    parsed = text_format.Parse(config.read_text(), model_config_pb2.ModelConfig())
    assert dict(parsed.cc_model_filenames) == NEW.by_capability
    assert names(config.parent) == ["gpu.pbtxt"]
    assert names(repository) == ALL


def test_a_rename_that_fails_gives_the_old_configuration_for_gpus_back(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(repository, plans=OLD)
    before = tree(repository)
    rename = Path.rename

    def fail_at_the_end(self: Path, target: Path) -> Path:
        if self.name == "gpu.pbtxt":
            rename(self, target)
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_at_the_end)
    with pytest.raises(RepositoryError, match="No space left"):
        put(repository, plans=NEW)
    assert tree(repository) == before


def test_a_new_model_serves_the_artefact_that_was_asked_for(repository: Path) -> None:
    put(repository, kinds=["openvino-int8"], serve="openvino-int8")
    parsed = text_format.Parse(
        (repository / "shoes_generator" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig()
    )
    assert (parsed.backend, parsed.default_model_filename) == ("openvino", "model_int8.xml")


def test_a_version_without_the_file_that_is_served_is_refused_before_the_work(repository: Path) -> None:
    put(repository, kinds=["openvino-int8"], serve="openvino-int8")
    check_repository(repository, "shoes", kinds=["openvino-int8"])
    with pytest.raises(RepositoryError, match=r"serves `model_int8\.xml`.* Pass --artefacts openvino-int8"):
        check_repository(repository, "shoes", kinds=["openvino"])
    with pytest.raises(RepositoryError, match=r'`backend: "openvino"` and `default_model_filename: "model\.xml"`'):
        check_repository(repository, "shoes", kinds=["openvino", "openvino-int8"], serve="openvino")
    with pytest.raises(OptionInvalid, match=r"openvino can't be served: it is not made\. Add `--artefacts openvino`"):
        check_repository(repository, "new", kinds=["tensorrt"], serve="openvino")


@pytest.mark.parametrize(("served", "made"), [("openvino", "openvino-bf16"), ("openvino-bf16", "openvino")])
def test_a_file_that_is_served_in_a_precision_without_certificate_is_refused(
    served: str, made: str, repository: Path
) -> None:
    put(repository, kinds=[served], serve=served)
    check_repository(repository, "shoes", kinds=["openvino", "openvino-bf16"])
    with pytest.raises(RepositoryError, match=rf"serves `model\.xml` as {served},.* Pass --artefacts {served}"):
        check_repository(repository, "shoes", kinds=[made])
    with pytest.raises(RepositoryError, match=f"To serve {made}, write") as caught:
        check_repository(repository, "shoes", kinds=[served, made], serve=made)
    assert f"{'with' if made == 'openvino-bf16' else 'without'} the parameter HINT_BF16" in str(caught.value)


def test_what_another_export_made_of_the_model_meanwhile_is_checked_again(repository: Path) -> None:
    with staging(repository) as stage:
        (stage / "version").mkdir()
        (stage / "version" / "model.onnx").write_text("weights")
        check_repository(repository, "shoes", kinds=())
        put(repository, kinds=["openvino-int8"], serve="openvino-int8")
        with pytest.raises(RepositoryError, match="which this export does not make"):
            publish(stage / "version", name="shoes", repository=repository, sha256={})
    assert names(repository / "shoes_generator") == ["1", "config.pbtxt"]


def test_a_configuration_for_gpus_that_can_not_be_rewritten_is_refused_before_the_work(repository: Path) -> None:
    put(repository, plans=OLD)
    (repository / "shoes_generator" / "configs" / "gpu.pbtxt").write_text('name: "shoes_generator"\n')
    with pytest.raises(RepositoryError, match="is not laid out as export writes it"):
        check_repository(repository, "shoes", kinds=["tensorrt"])


def test_a_version_without_plans_is_refused_where_gpus_serve_plans(repository: Path) -> None:
    put(repository, plans=OLD)
    check_repository(repository, "shoes", kinds=["tensorrt-int8"])
    with pytest.raises(RepositoryError, match="serves TensorRT plans, and this export makes none"):
        check_repository(repository, "shoes", kinds=["tensorrt-rtx"])
