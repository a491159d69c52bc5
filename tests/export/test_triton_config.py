from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sketchbridge_export import triton_config
from sketchbridge_export.errors import OptionInvalid, RepositoryError
from sketchbridge_export.gpu_config import Plans, gpu_config

SHIPPED = Path(__file__).parents[2] / "model_repository"


def parse(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_generators_config_is_the_contract() -> None:
    config = parse(triton_config.generator_config("shoes"))
    assert (config.name, config.backend, config.max_batch_size) == ("shoes_generator", "onnxruntime", 8)
    for tensors, name in ((config.input, "sketch"), (config.output, "photo")):
        assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in tensors] == [
            (name, model_config_pb2.TYPE_UINT8, [256, 256, 3])
        ]
    assert config.HasField("dynamic_batching")
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    ]
    assert list(config.model_warmup[0].inputs["sketch"].dims) == [256, 256, 3]


def test_no_queue_that_is_written_or_shipped_has_a_policy() -> None:
    """With any limit of size or time, Triton 2.51 stops fetching ahead and loses count of its free instances.

    Then requests wait for its next look, twice a second, though the model is idle.
    """
    texts = [path.read_text() for path in sorted(SHIPPED.glob("*/config.pbtxt"))]
    texts += [triton_config.generator_config("shoes", kind) for kind in triton_config.SERVED]
    texts.append(gpu_config("shoes", Plans({}, portable="any.plan")))
    batchers = [config.dynamic_batching for config in map(parse, texts) if config.HasField("dynamic_batching")]
    assert len(batchers) > len(triton_config.SERVED) + 1
    for batcher in batchers:
        assert not batcher.HasField("default_queue_policy")
        assert not batcher.priority_levels


@pytest.mark.parametrize("kind", list(triton_config.SERVED))
def test_every_kind_that_is_served_has_a_config_that_differs_in_backend_file_and_parameters_only(kind: str) -> None:
    usual, config = (parse(triton_config.generator_config("shoes", one)) for one in ("onnx", kind))
    served = triton_config.SERVED[kind]
    assert (config.backend, config.default_model_filename) == (served.backend, served.file)
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        key: value for key, (value, _) in served.parameters.items()
    }
    for other in (usual, config):
        other.ClearField("parameters")
        other.backend = other.default_model_filename = ""
    assert config == usual


@pytest.mark.parametrize("kind", list(triton_config.SERVED))
def test_a_config_that_export_writes_says_which_kind_it_serves(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(triton_config.generator_config("shoes", kind))
    assert triton_config.read_serving(path) == triton_config.Serving(triton_config.SERVED[kind].file, kind)


@pytest.mark.parametrize(
    ("text", "serving"),
    [
        ('backend: "onnxruntime"', triton_config.Serving("model.onnx", "onnx")),
        ("backend: \"openvino\" default_model_filename : 'model.xml'", triton_config.Serving("model.xml", "openvino")),
        ('backend: "openvino" # default_model_filename: "a"', triton_config.Serving("model.xml", "openvino")),
        ('backend: "openvino" default_model_filename: "model.onnx"', triton_config.Serving("model.onnx", None)),
        ('backend: "onnxruntime" field_of_a_later_release: 7', triton_config.Serving("model.onnx", "onnx")),
        (
            'backend: "openvino" parameters { key: "INFERENCE_PRECISION_HINT" value { string_value: "bf16" } }',
            triton_config.Serving("model.xml", "openvino-bf16"),
        ),
        (
            'backend: "openvino" parameters { key: "INFERENCE_PRECISION_HINT" value { string_value: "f16" } }',
            triton_config.Serving("model.xml", None),
        ),
    ],
)
def test_a_config_that_somebody_changed_is_read_as_triton_reads_it(
    text: str, serving: triton_config.Serving, tmp_path: Path
) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text(text)
    assert triton_config.read_serving(path) == serving


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"backend: [", "is no model configuration"), (b"\xff", "is no model configuration"), (b"", "names no file")],
)
def test_a_config_that_triton_could_not_read_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    with pytest.raises(RepositoryError, match=r"config\.pbtxt` can't be read"):
        triton_config.read_serving(path)
    path.write_bytes(content)
    with pytest.raises(RepositoryError, match=message):
        triton_config.read_serving(path)


@pytest.mark.parametrize(
    ("config_of", "name", "source", "results", "models"),
    [
        (triton_config.paint_config, "shoes", "sketch", ["timings", "photo"], ["decode", "shoes_generator", "encode"]),
        (
            triton_config.roundtrip_config,
            "shoes_roundtrip",
            "photo",
            ["timings", "sketch", "repainted"],
            ["sketch", "shoes_generator", "encode"],
        ),
    ],
)
def test_an_ensembles_config_is_the_contract_and_its_tensors_connect(
    config_of: Callable[[str], str], name: str, source: str, results: list[str], models: list[str]
) -> None:
    config = parse(config_of("shoes"))
    assert (config.name, config.platform, config.max_batch_size) == (name, "ensemble", 8)
    assert [tensor.name for tensor in config.input] == [source]
    assert [tensor.name for tensor in config.output] == results
    assert {tensor.data_type for tensor in (*config.input, *config.output)} == {model_config_pb2.TYPE_STRING}
    steps = config.ensemble_scheduling.step
    assert [step.model_name for step in steps] == models
    made = {source}
    for step in steps:
        assert set(step.input_map.values()) <= made
        made |= set(step.output_map.values())
    assert set(results) <= made


@pytest.mark.parametrize("config_of", [triton_config.paint_config, triton_config.roundtrip_config])
def test_an_ensemble_without_timings_differs_in_nothing_else(config_of: Callable[..., str]) -> None:
    config, older = parse(config_of("shoes")), parse(config_of("shoes", timings=False))
    assert config.output.pop(0).name == "timings"
    assert config.ensemble_scheduling.step[-1].output_map.pop("timings") == "timings"
    assert config == older


@pytest.mark.parametrize("config_of", [triton_config.paint_config, triton_config.roundtrip_config])
def test_the_shipped_ensembles_are_as_export_writes_them(config_of: Callable[[str], str]) -> None:
    generators = sorted(SHIPPED.glob("*_generator"))
    assert generators
    for generator in generators:
        text = config_of(generator.name.removesuffix("_generator"))
        assert (SHIPPED / parse(text).name / "config.pbtxt").read_text() == text


@pytest.mark.parametrize("name", ["shoes", "a", "x" * 63, "line_art_2"])
def test_ordinary_names_are_taken(name: str) -> None:
    triton_config.check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "Shoes", "2cats", "_a", "a-b", "a/b", "../a", "a\n", "x" * 64, "schön", "decode", "encode", "sketch",
     "a_generator", "a_roundtrip"],
)  # fmt: skip
def test_names_that_could_not_be_served_are_refused(name: str) -> None:
    with pytest.raises(OptionInvalid):
        triton_config.check_name(name)
