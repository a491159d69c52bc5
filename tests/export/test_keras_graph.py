"""Configurations that Keras never wrote: each is refused with a reason, in bounded time."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from sketchbridge_export.families import Weights
from sketchbridge_export.families.keras_graph import read_graph
from sketchbridge_export.families.keras_model import recognise
from sketchbridge_export.families.layers import StructureMismatch


def entry(class_name: str, name: str, *inputs: str, **config: Any) -> dict[str, Any]:
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": [[[source, 0, 0, {}] for source in inputs]] if inputs else [],
    }


def model(*layers: dict[str, Any], output: str) -> dict[str, Any]:
    start = entry("InputLayer", "in", batch_input_shape=[None, 64, 64, 3])
    config = {"layers": [start, *layers], "input_layers": [["in", 0, 0]], "output_layers": [[output, 0, 0]]}
    return {"class_name": "Functional", "config": config}


def why(graph: dict[str, Any], tensors: dict[str, torch.Tensor] | None = None) -> str:
    recognition = recognise(Weights(tensors or {}, framework="keras", graph=graph))
    assert not recognition.matches
    return recognition.why


def test_a_cycle_is_refused() -> None:
    graph = model(entry("ReLU", "a", "b"), entry("ReLU", "b", "a"), output="a")
    assert why(graph) == "its layer 'a' is fed its own result"


def test_a_model_inside_itself_can_not_be_written_and_deep_nesting_is_refused() -> None:
    graph = model(entry("ReLU", "a", "in"), output="a")
    for _ in range(20):
        graph = {"class_name": "Sequential", "config": {"layers": [{**graph, "name": "inner"}]}}
    assert why(graph) == "its models nest more than 8 deep"


def test_models_that_multiply_each_other_are_stopped() -> None:
    inner: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "m", "layers": [entry("ReLU", "r")]}}
    for depth in range(6):
        calls = []
        source = "in"
        for index in range(10):
            calls.append([[source, index if source == "m" else 0, 0, {}]])
            source = "m"
        start = entry("InputLayer", "in", batch_input_shape=[None, 64, 64, 3])
        config = {
            "name": "m",
            "layers": [start, {**copy.deepcopy(inner), "name": "m", "inbound_nodes": calls}],
            "input_layers": [["in", 0, 0]],
            "output_layers": [["m", 10, 0]],
        }
        inner = {"class_name": "Functional", "config": config}
        assert depth < 6
    assert why(inner) == "it takes more than 2000 steps"


def test_a_chain_longer_than_pythons_stack_is_read() -> None:
    layers = [entry("ReLU", "r0", "in")]
    layers += [entry("ReLU", f"r{index}", f"r{index - 1}") for index in range(1, 1900)]
    graph = read_graph(model(*reversed(layers), output="r1899"))
    assert len(graph.steps) == 1900


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ({}, "class_name is a NoneType"),
        ({"class_name": "Generator", "config": {}}, "of the class `Generator`, whose layers are code"),
        ({"class_name": "Functional", "config": {"layers": 7}}, "layers is a int, expected a list"),
        (model(entry("ReLU", "a", "nobody"), output="a"), "its layer 'nobody' is fed nothing"),
        (model(entry("ReLU", "a", "in"), entry("ReLU", "a", "in"), output="a"), "two of its layers are called 'a'"),
        (model(entry("TFOpLambda", "a", "in"), output="a"), "a TFOpLambda, which runs code"),
        (model(entry("Swirl", "a", "in"), output="a"), "`a` is a Swirl, which is not known here"),
        (model(output="in"), "gives back what it is fed"),
        (model(entry("UpSampling2D", "a", "in", size=1e9), output="a"), "has size 1000000000.0"),
        (model(entry("UpSampling2D", "a", "in", size=[16, 10**9]), output="a"), "expected 1 to 16"),
        (model(entry("Dropout", "a", "in", rate=1), output="a"), "has rate 1.0, expected 0 to 1"),
        (model(entry("LeakyReLU", "a", "in", alpha=float("nan")), output="a"), "has alpha nan"),
        (model(entry("Activation", "a", "in", activation="softmax"), output="a"), "a segmentation network"),
        (model(entry("Activation", "a", "in", activation={"a": []}), output="a"), "has the activation 'nothing known'"),
        (model(entry("Activation", "a", "in", activation="relu"), output="a"), "it ends in relu"),
        (model(entry("Concatenate", "a", "in", "in", axis=1), output="a"), "joins along another axis"),
        (model(entry("Conv2D", "a", "in", filters=3, kernel_size=3), output="a"), "have 2 weights, the file holds 0"),
        (model(entry("MaxPooling2D", "a", "in", pool_size=64), entry("UpSampling2D", "b", "a"), output="b"), "scores"),
        (model(entry("ReLU", "a", "in", data_format=[]), output="nobody"), "its layer 'nobody' is fed nothing"),
    ],
)  # fmt: skip
def test_a_configuration_that_can_not_be_is_refused_with_the_reason(graph: dict[str, Any], reason: str) -> None:
    assert reason in why(graph)


def test_feature_maps_are_bounded_before_anything_is_allocated() -> None:
    ups = [entry("UpSampling2D", "u0", "in", size=16)]
    ups += [entry("UpSampling2D", f"u{index}", f"u{index - 1}", size=16) for index in range(1, 5)]
    assert "more than 67,108,864 values" in why(model(*ups, output="u4"))


def test_a_layer_called_with_more_than_results_of_layers_is_refused() -> None:
    graph = model(entry("Add", "a", "in"), output="a")
    graph["config"]["layers"][1]["inbound_nodes"] = [{"args": [3.0], "kwargs": {}}]
    assert why(graph) == "a layer is called with 3.0, which is no result of a layer"
    graph["config"]["layers"][1]["inbound_nodes"] = [[["in", 0, 0, {"y": 2}]]]
    assert why(graph) == "a layer is called with the argument 'y', which is not understood"


def test_a_file_without_a_configuration_is_no_mismatch_of_a_graph() -> None:
    assert recognise(Weights({}, framework="keras")).why == "the configuration of a Keras model is missing"
    with pytest.raises(StructureMismatch, match="expected an object"):
        read_graph({"class_name": "Functional", "config": 3})
