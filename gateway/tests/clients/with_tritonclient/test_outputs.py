"""Which outputs come back, in which order and encoding, and with what name."""

from __future__ import annotations

import numpy as np
import pytest

import wire
from calls import INVALID, Caller
from harness import Gateway

A = np.arange(1, 9, dtype=np.float32).reshape(2, 4)
INPUTS = {"a": A, "b": A * 10}


def test_without_a_list_all_outputs_come(caller: Caller) -> None:
    assert caller.infer("add_sub", INPUTS).outputs == ["sum", "difference"]


@pytest.mark.parametrize("names", [["difference"], ["sum"], ["difference", "sum"]])
def test_chosen_outputs_come_in_the_order_of_the_choice(caller: Caller, names: list[str]) -> None:
    answer = caller.infer("add_sub", INPUTS, outputs=names)
    assert answer.outputs == names
    expected = {"sum": A * 11, "difference": A * -9}
    for name in names:
        np.testing.assert_array_equal(answer[name], expected[name])


def test_an_unknown_output_is_refused_by_name(caller: Caller) -> None:
    """Trap 26."""
    text = caller.refused(INVALID, "add_sub", INPUTS, outputs=["sum", "product"])
    assert "product" in text and "'sum'" in text


def test_the_request_id_comes_back(caller: Caller) -> None:
    assert caller.infer("add_sub", INPUTS, request_id="order-66").id == "order-66"
    assert caller.infer("add_sub", INPUTS).id == ""


def request(**more: object) -> dict[str, object]:
    """A JSON request for add_sub."""
    inputs = [wire.tensor("FP32", [2, 4], INPUTS[name].tolist(), name) for name in ("a", "b")]
    return {"inputs": inputs, **more}


def test_json_in_without_outputs_gives_flat_json(gateway: Gateway) -> None:
    """Trap 5: C++ clients read `data` as a flat list. Trap 11: `model_name` is there."""
    answer = wire.infer(gateway.http, "add_sub", request())
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in answer.headers
    body = answer.json()
    assert (body["model_name"], body["model_version"]) == ("add_sub", "1")
    assert "id" not in body
    for output in body["outputs"]:
        # Trap 4: parameters without binary_data_size make the C++ client fail.
        assert set(output) == {"name", "datatype", "shape", "data"}
        assert output["shape"] == [2, 4]
    assert body["outputs"][0]["data"] == (A * 11).flatten().tolist()


def test_outputs_choose_their_encoding_one_by_one(gateway: Gateway) -> None:
    outputs = [
        {"name": "difference", "parameters": {"binary_data": True}},
        {"name": "sum", "parameters": {"binary_data": False}},
    ]
    answer = wire.infer(gateway.http, "add_sub", request(outputs=outputs))
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    body = wire.json.loads(answer.body[:length])
    difference, total = body["outputs"]
    assert difference["parameters"] == {"binary_data_size": 32} and "data" not in difference
    assert "parameters" not in total
    assert answer.body[length:] == (A * -9).tobytes()
    assert total["data"] == (A * 11).flatten().tolist()


def test_binary_data_of_an_output_wins_over_the_request(gateway: Gateway) -> None:
    outputs = [{"name": "sum"}, {"name": "difference", "parameters": {"binary_data": False}}]
    body = request(outputs=outputs, parameters={"binary_data_output": True})
    answer = wire.infer(gateway.http, "add_sub", body)
    length = int(answer.headers["inference-header-content-length"])
    assert len(answer.body) - length == 32


def test_parameters_that_nobody_knows_are_let_be(caller: Caller) -> None:
    """Trap 17: `priority` comes as either integer type."""
    options = {
        "priority": 3,
        "timeout": 20_000_000,
        "parameters": {"note": "x", "n": 1, "yes": True},
    }
    answer = caller.infer("add_sub", INPUTS, **options)
    np.testing.assert_array_equal(answer["sum"], A * 11)


def test_parameters_reserved_for_the_server_are_refused(gateway: Gateway) -> None:
    answer = wire.infer(gateway.http, "add_sub", request(parameters={"triton_secret": 1}))
    assert answer.status == 400 and "triton_secret" in answer.error()
