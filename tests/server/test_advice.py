from __future__ import annotations

from sketchbridge_server.advice import explain, explain_all

FRAMES = "\n\nAt:\n  /models/decode/1/model.py(3): <module>\n"


def test_a_reason_without_advice_loses_only_its_kind_and_its_frames() -> None:
    assert explain(f"Internal: ValueError: bad weights{FRAMES}") == "ValueError: bad weights"


def test_a_missing_package_says_what_to_install() -> None:
    explained = explain(f"Internal: ModuleNotFoundError: No module named 'cv2'{FRAMES}")
    assert explained == (
        "ModuleNotFoundError: No module named 'cv2'. "
        "Install cv2 into the Python environment that runs `sketchbridge serve`."
    )


def test_a_damaged_file_says_what_the_runtime_noticed_and_how_to_find_out_more() -> None:
    explained = explain(
        "Internal: ConfigurationError: OpenVINO 2026.4.1 cannot read /srv/my models/bags_generator/1/model.xml: "
        "Exception from src/inference/src/cpp/core.cpp:84:\n"
        "Check 'is_valid_weights_range(m_weights_provider->size(), offset, size)' failed at src/core/x.cpp:900:\n"
        f"Incorrect weights in bin file!\n\n{FRAMES}"
    )
    assert explained == (
        "ConfigurationError: OpenVINO 2026.4.1 cannot read /srv/my models/bags_generator/1/model.xml: "
        "Incorrect weights in bin file. If `sketchbridge verify '/srv/my models' --no-paint` calls its files changed, "
        "export it again."
    )


def test_models_with_a_fault_of_their_own_come_first() -> None:
    reasons = {
        "a_pipeline": "ensemble 'a_pipeline' depends on 'generator' which has no loaded version. Model 'generator' ...",
        "generator": "Invalid argument: unable to find backend library for backend 'tensorrt', try specifying runtime.",
    }
    first, second, third = explain_all(reasons).splitlines()
    assert first.startswith("2 models could not be loaded")
    assert second.startswith("  generator: unable to find")
    assert "NVIDIA's image" in second
    assert third == (
        "  a_pipeline: depends on 'generator' which has no loaded version. "
        "It is an ensemble: once generator loads, it will too."
    )
