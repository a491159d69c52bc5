from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from sketchbridge_export.errors import OptionInvalid, RepositoryError
from sketchbridge_export.gpu_config import Plans, check_layout, gpu_config, read_plans, with_plans
from sketchbridge_export.triton_config import generator_config

PLANS = {"12.0": "model.sm120.trt11.4.0.plan", "8.6": "model.sm86.trt11.4.0.plan"}


def parse(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_every_gpu_gets_the_plan_of_its_compute_capability_and_no_other() -> None:
    config = parse(gpu_config("shoes", Plans(PLANS)))
    assert (config.name, config.backend) == ("shoes_generator", "tensorrt")
    assert dict(config.cc_model_filenames) == PLANS
    assert config.default_model_filename not in PLANS.values()
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (1, model_config_pb2.ModelInstanceGroup.KIND_GPU)
    ]


def test_a_hardware_compatible_plan_is_for_all_others() -> None:
    portable = "model.sm80-or-later.trt11.4.0.plan"
    config = parse(gpu_config("shoes", Plans({}, portable=portable)))
    assert config.default_model_filename == portable
    assert not config.cc_model_filenames


def test_it_shows_the_same_face_as_the_configuration_for_the_cpu() -> None:
    gpu, cpu = parse(gpu_config("shoes", Plans(PLANS))), parse(generator_config("shoes"))
    for field in ("name", "max_batch_size", "input", "output"):
        assert getattr(gpu, field) == getattr(cpu, field)


@pytest.mark.parametrize(
    ("most", "sizes"), [(8, [1, 2, 4, 8]), (16, [1, 2, 4, 8, 16]), (6, [1, 2, 4, 6]), (2, [1, 2]), (1, [1])]
)
def test_each_cuda_graph_is_captured_by_a_warmup_and_asked_for_by_the_batcher(most: int, sizes: list[int]) -> None:
    config = parse(gpu_config("shoes", Plans(PLANS, max_batch_size=most)))
    cuda = config.optimization.cuda
    assert cuda.graphs
    assert [graph.batch_size for graph in cuda.graph_spec] == sizes
    assert [warmup.batch_size for warmup in config.model_warmup] == sizes
    assert all(list(warmup.inputs["sketch"].dims) == [256, 256, 3] for warmup in config.model_warmup)
    assert {1, *config.dynamic_batching.preferred_batch_size} == set(sizes)
    assert 0 < config.dynamic_batching.max_queue_delay_microseconds < 5_000


@pytest.mark.parametrize(
    ("plans", "reason"),
    [
        ({}, "at least one plan"),
        ({"90": "model.plan"}, "'90' is no compute capability"),
        ({"9.0": "model.sm86.rtx1.7.1.engine"}, r"names that end with \.plan"),
        ({"9.0": '../model.plan" }'}, r"names that end with \.plan"),
    ],
)
def test_what_triton_could_not_load_is_refused(plans: dict[str, str], reason: str) -> None:
    with pytest.raises(OptionInvalid, match=reason):
        Plans(plans)


def test_new_plans_take_the_place_of_old_ones_and_what_was_tuned_stays() -> None:
    tuned = gpu_config("shoes", Plans(PLANS)).replace(
        "max_queue_delay_microseconds: 500", "max_queue_delay_microseconds: 9"
    )
    portable = "model.sm80-or-later.trt11.4.0.plan"
    config = parse(with_plans(tuned, Plans({}, portable=portable), Path("gpu.pbtxt")))
    assert config.default_model_filename == portable
    assert not config.cc_model_filenames
    assert config.dynamic_batching.max_queue_delay_microseconds == 9
    assert with_plans(with_plans(tuned, Plans({}, portable=portable), Path()), Plans(PLANS), Path()) == tuned


@pytest.mark.parametrize("layout", ["", 'name: "a"\n', '  cc_model_filenames { key: "9.0" value: "model.plan" }\n'])
def test_a_configuration_of_another_layout_is_left_alone(layout: str) -> None:
    with pytest.raises(RepositoryError, match="is not laid out as export writes it"):
        with_plans(layout, Plans(PLANS), Path("gpu.pbtxt"))


def test_the_plans_that_a_configuration_names_are_read_from_it(tmp_path: Path) -> None:
    path = tmp_path / "gpu.pbtxt"
    for plans, named in (
        (Plans(PLANS), set(PLANS.values())),
        (Plans(PLANS, portable="any.plan"), {*PLANS.values(), "any.plan"}),
    ):
        path.write_text(gpu_config("shoes", plans))
        assert read_plans(path) == named
        check_layout(path)
