from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from sketchbridge_client import InvalidArgument, ModelKind, ResponseInvalid
from sketchbridge_client.arrays import tensors_of
from sketchbridge_client.calls import (
    Answer,
    Call,
    check_parameter,
    infer_request,
    paint_call,
    painted,
    read_answers,
    roundtrip_call,
    sketch_call,
    sketched,
    there_and_back,
)
from sketchbridge_client.messages import Inferred, Tensor, bytes_tensor
from sketchbridge_client.timings import Timings

TIMINGS = Timings(total_s=0.5, client_s=0.1, attempts=1)


def paint(**options: Any) -> Call:
    nothing = {"fit": None, "normalise": None, "output_format": None, "quality": None}
    return paint_call(**{"model": "shoes", **nothing, **options})


def sketch(**parameters: Any) -> Call:
    return sketch_call(method="canny", output_format=None, quality=None, parameters=parameters)


def roundtrip(**options: Any) -> Call:
    nothing: dict[str, Any] = {
        "method": None,
        "fit": None,
        "normalise": None,
        "output_format": None,
        "quality": None,
        "parameters": {},
    }
    return roundtrip_call(**{"model": "shoes", **nothing, **options})


def answer(call: Call, **outputs: bytes) -> Answer:
    return Answer(call, outputs, model=call.model, model_version="3", request_id="abc", timings=TIMINGS)


def test_a_painting_is_asked_of_the_model_by_its_tensors() -> None:
    call = paint(model="birds")
    assert (call.model, call.input_name, call.outputs) == ("birds", "sketch", ("photo",))
    assert call.wanted is ModelKind.PAINTER


def test_what_is_not_given_is_not_sent() -> None:
    assert paint().parameters == {}
    assert sketch().parameters == {"method": "canny"}
    assert roundtrip().parameters == {}


def test_what_is_given_is_sent_under_its_own_name() -> None:
    given = {"fit": "crop", "normalise": "off", "output_format": "jpeg", "quality": 80}
    assert paint(**given).parameters == given
    assert roundtrip(**given, method="dodge").parameters == {**given, "method": "dodge"}


def test_a_methods_own_numbers_are_sent_beside_it() -> None:
    assert sketch(low_threshold=50, blur_sigma=0.8).parameters == {
        "method": "canny",
        "low_threshold": 50,
        "blur_sigma": 0.8,
    }


def test_a_roundtrip_goes_to_the_model_beside_the_painter() -> None:
    call = roundtrip()
    assert (call.model, call.input_name, call.outputs) == ("shoes_roundtrip", "photo", ("sketch", "repainted"))


def test_numbers_of_numpy_become_plain_ones() -> None:
    sent = sketch(a=np.int32(5), b=np.float32(0.5), c=True, d="e").parameters
    assert sent == {"method": "canny", "a": 5, "b": 0.5, "c": True, "d": "e"}
    assert [type(value) for value in sent.values()] == [str, int, float, bool, str]


@pytest.mark.parametrize("name", ["priority", "timeout", "sequence_id", "triton_final_response", "binary_data_size"])
def test_what_triton_keeps_for_itself_cannot_be_sent(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"`{name}` is a parameter that Triton keeps"):
        sketch(**{name: 1})


def test_base64_which_no_picture_is_made_of_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidArgument, match="`output_encoding` is 'base64'"):
        sketch(output_encoding="base64")
    assert sketch(output_encoding="raw").parameters["output_encoding"] == "raw"


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"x", 2**63, -(2**63) - 1, "\udcff", Fraction(10**400), 10**400])
def test_a_value_that_cannot_cross_the_wire_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="`sigma` is"):
        sketch(sigma=value)


def test_a_whole_number_too_long_to_be_shown_is_refused_as_well() -> None:
    with pytest.raises(InvalidArgument, match="`sigma` is a whole number"):
        sketch(sigma=10**5000)


@pytest.mark.parametrize("name", ["", None, 7, b"sigma", "\udcff"])
def test_a_parameter_is_named_by_text(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="`parameters` names a parameter"):
        check_parameter(name, 1)


@pytest.mark.parametrize("name", ["", None, 7, b"x", "\udcff"])
def test_a_tensor_is_named_by_text(name: Any) -> None:
    with pytest.raises(InvalidArgument, match="`inputs` names a tensor"):
        tensors_of({name: np.zeros(1)})


@pytest.mark.parametrize("dtype", [np.str_, np.object_])
def test_an_array_of_text_that_is_no_unicode_is_refused_by_name(dtype: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"`inputs\['x'\]` is an array with text in it that is no valid Unicode"):
        tensors_of({"x": np.array(["a", "\udcff"], dtype)})


@pytest.mark.parametrize("model", ["", None, 7, "\udcff"])
def test_a_model_is_named_by_a_string(model: Any) -> None:
    with pytest.raises(InvalidArgument, match="`model` is"):
        paint(model=model)
    with pytest.raises(InvalidArgument, match="`model` is"):
        roundtrip(model=model)


def test_pictures_of_one_request_are_rows_of_one_tensor() -> None:
    request = infer_request(sketch(), [b"ab", b"", b"c"], "abc", with_timings=False)
    assert request.inputs == (
        Tensor("photo", "BYTES", (3, 1), (b"\2\0\0\0", b"ab", b"\0\0\0\0", b"", b"\1\0\0\0", b"c")),
    )
    assert (request.model, request.outputs, request.request_id) == ("sketch", ("sketch",), "abc")
    assert "ab" not in repr(request.inputs)
    assert infer_request(sketch(), [b"ab"], "abc", with_timings=True).outputs == ("sketch", "timings")


def test_each_picture_of_a_request_is_answered_in_its_place(png: bytes) -> None:
    inferred = Inferred("shoes", "2", (bytes_tensor("photo", [png, png + b"tail"]),))
    first, second = (painted(one) for one in read_answers(paint(), inferred, 2, "abc", TIMINGS))
    assert (first.bytes, second.bytes) == (png, png + b"tail")
    assert first.model_version == second.model_version == "2"


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("photo", "UINT8", (1, 4, 4, 3), (bytes(48),)),
        Tensor("photo", "BYTES", (2, 1), (b"\1\0\0\0a" * 2,)),
        Tensor("photo", "BYTES", (1,), (b"\1\0\0\0a",)),
        Tensor("photo", "BYTES", (1, 1), (b"",)),
        Tensor("photo", "BYTES", (1, 1), (b"\5",)),
        Tensor("photo", "BYTES", (1, 1), (b"\xff\xff\0\0short",)),
        Tensor("photo", "BYTES", (1, 1), (b"\1\0\0\0a" * 2,)),
    ],
)
def test_rows_that_do_not_match_the_request_are_an_invalid_answer(tensor: Tensor) -> None:
    with pytest.raises(ResponseInvalid, match="The answer of `shoes` cannot be read") as caught:
        read_answers(paint(), Inferred("shoes", "1", (tensor,)), 1, "abc", TIMINGS)
    assert caught.value.request_id == "abc"


def test_any_model_may_be_asked_for_base64() -> None:
    assert check_parameter("output_encoding", "base64") == "base64"


def test_an_answer_is_read_with_who_made_it(png: bytes) -> None:
    call = paint()
    made = painted(answer(call, photo=png))
    assert (made.bytes, made.format, made.model, made.model_version) == (png, "png", "shoes", "3")
    assert (made.request_id, made.timings) == ("abc", TIMINGS)


def test_both_pictures_of_a_roundtrip_are_read(png: bytes) -> None:
    call = roundtrip()
    both = there_and_back(answer(call, sketch=png, repainted=png + b"tail"))
    assert (both.sketch.bytes, both.photo.bytes) == (png, png + b"tail")


def test_an_answer_without_the_output_is_invalid(png: bytes) -> None:
    call = sketch()
    with pytest.raises(ResponseInvalid, match=r"without the output `sketch`; there came \['photo'\]") as caught:
        sketched(answer(call, photo=png))
    assert (caught.value.model, caught.value.request_id) == ("sketch", "abc")


@pytest.mark.parametrize(("data", "shown"), [(b"", "nothing"), (b"an error", "61 6e 20 65 72 72 6f 72")])
def test_an_answer_that_is_no_picture_is_invalid(data: bytes, shown: str) -> None:
    with pytest.raises(ResponseInvalid, match=f"is no PNG, JPEG, WEBP file; its {len(data)} bytes begin with {shown}"):
        painted(answer(paint(), photo=data))
