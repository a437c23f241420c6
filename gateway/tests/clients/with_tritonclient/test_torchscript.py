"""TorchScript models: one and several inputs and outputs, single and batched, equal to numpy."""

from __future__ import annotations

import numpy as np
import pytest

from calls import FAILED, INVALID, Caller

RANDOM = np.random.default_rng(7)


def singles(*shape: int) -> np.ndarray:
    """Random FP32 values."""
    return RANDOM.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_tuple_of_two_outputs_of_two_inputs(caller: Caller, rows: int) -> None:
    a, b = singles(rows, 4), singles(rows, 4)
    answer = caller.infer("add_sub", {"a": a, "b": b})
    assert answer.outputs == ["sum", "difference"]
    np.testing.assert_array_equal(answer["sum"], a + b)
    np.testing.assert_array_equal(answer["difference"], a - b)


def test_inputs_may_come_in_any_order(caller: Caller) -> None:
    a, b = singles(2, 4), singles(2, 4)
    answer = caller.infer("add_sub", {"b": b, "a": a})
    np.testing.assert_array_equal(answer["difference"], a - b)


def test_a_dictionary_gives_its_outputs_by_name_in_the_order_of_the_signature(
    caller: Caller,
) -> None:
    x = np.array([[-1.5, 0, 2], [3, -4, 0]], np.float32)
    answer = caller.infer("dict_out", {"x": x})
    assert answer.outputs == ["double", "sign"]
    np.testing.assert_array_equal(answer["double"], x * 2)
    np.testing.assert_array_equal(answer["sign"], np.sign(x).astype(np.int64))


def test_outputs_of_different_ranks(caller: Caller) -> None:
    x = singles(5, 8)
    answer = caller.infer("reduce", {"x": x})
    assert answer["mean"].shape == (5, 1) and answer["largest"].shape == (5,)
    np.testing.assert_allclose(answer["mean"][:, 0], x.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(answer["largest"], x.max(1))


@pytest.mark.parametrize("length", [1, 5, 17])
def test_inputs_of_variable_length_and_two_datatypes(caller: Caller, length: int) -> None:
    values, mask = singles(3, length), RANDOM.random((3, length)) > 0.5
    answer = caller.infer("masked_sum", {"values": values, "mask": mask})
    np.testing.assert_allclose(answer["total"], (values * mask).sum(1), rtol=1e-5, atol=1e-6)


def test_a_table_look_up(caller: Caller) -> None:
    ids = np.array([[0, 15, 3], [7, 7, 1]], np.int64)
    table = (np.arange(64, dtype=np.float32) * 0.25).reshape(16, 4)
    np.testing.assert_array_equal(caller.infer("lookup", {"ids": ids})["vectors"], table[ids])


def test_a_value_that_the_model_cannot_take_fails_its_call_only(caller: Caller) -> None:
    bad = np.array([[0, 16, 3]], np.int64)
    text = caller.refused(INVALID, "lookup", {"ids": bad})
    assert "Traceback" not in text and "forward" not in text and ".cpp" not in text
    caller.infer("lookup", {"ids": bad % 16})


def test_a_model_without_batching_and_with_an_output_that_is_not_dense(caller: Caller) -> None:
    x = singles(2, 3)
    np.testing.assert_array_equal(caller.infer("transpose", {"x": x})["y"], x.T)
    caller.refused(INVALID, "transpose", {"x": singles(3, 3)})


def test_each_version_answers_for_itself_and_the_highest_by_default(caller: Caller) -> None:
    """Trap 19: no version means the highest ready one the policy serves."""
    x = np.array([[1], [2]], np.float32)
    answer = caller.infer("digits", {"pixels": singles(1, 64)}, model_version="1")
    assert (answer.model, answer.version) == ("digits", "1")
    answer = caller.infer("times", {"x": x})
    assert answer.version == "2"
    np.testing.assert_array_equal(answer["y"], x * 2)


def test_a_model_that_breaks_its_signature_is_an_error_of_the_server(caller: Caller) -> None:
    caller.refused(FAILED, "drops_rows", {"x": singles(2, 2)})
