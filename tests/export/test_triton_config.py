from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sketchbridge_export import triton_config
from sketchbridge_export.errors import OptionInvalid


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
    assert triton_config.served_file(triton_config.generator_config("shoes", kind)) == served.file


@pytest.mark.parametrize(
    ("config_of", "name", "source", "results", "models"),
    [
        (triton_config.paint_config, "shoes", "sketch", ["photo"], ["decode", "shoes_generator", "encode"]),
        (
            triton_config.roundtrip_config,
            "shoes_roundtrip",
            "photo",
            ["sketch", "repainted"],
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
