"""Input contracts: values that break a rule are refused, mended or flagged, and counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http

import wire
from calls import CALLERS, INVALID, Caller
from harness import Gateway, metric

RULES = """
[[input.contract.feature]]
index = 1
name = "age"
range = [0, 150]
"""


def write(folder: Path, name: str, dtype: str, contract: str, more: str = "") -> None:
    """Writes an identity model with a contract for its input; `more` is TOML."""
    (folder / name / "1").mkdir(parents=True)
    tensor = f'dtype = "{dtype}"\nshape = [-1, 2]\n'
    (folder / name / "model.toml").write_text(
        f'platform = "identity"\nmax_batch_size = 8\n[[input]]\nname = "x"\n{tensor}'
        f'[input.contract]\n{contract}\n{more}[[output]]\nname = "y"\n{tensor}'
    )


def write_all(folder: Path) -> None:
    """One model for each action, one for texts, one with an optional input."""
    write(folder, "rejects", "FP32", "finite = true", RULES)
    write(folder, "imputes", "FP32", "default = 7.5", f'{RULES}on_range = "impute"\n')
    write(folder, "flags", "FP32", "finite = true\naction = 'flag'", RULES)
    write(folder, "halves", "FP16", "range = [0.0, 0.5]\naction = 'impute'\ndefault = 0.25")
    write(folder, "texts", "BYTES", "categories = ['red', 'green']")
    write(folder, "cuts", "BYTES", "max_length = 3\naction = 'impute'\ndefault = '?'")
    second = 'dtype = "FP32"\nshape = [-1, 2]\n[input.contract]\noptional = true\ndefault = 0.5\n'
    outputs = '[[output]]\nname = "y"\ndtype = "FP32"\nshape = [-1, 2]\n'
    outputs += '[[output]]\nname = "w"\ndtype = "FP32"\nshape = [-1, 2]\n'
    (folder / "optional" / "1").mkdir(parents=True)
    (folder / "optional" / "model.toml").write_text(
        'platform = "identity"\nmax_batch_size = 8\n[[input]]\nname = "x"\ndtype = "FP32"\n'
        f'shape = [-1, 2]\n[[input]]\nname = "v"\n{second}{outputs}'
    )


@pytest.fixture(scope="module")
def own(start_gateway: Any) -> Gateway:
    """A gateway with the models of this file."""
    return start_gateway("", identities=False, prepare=write_all)


@pytest.fixture(params=["http", "grpc"])
def caller(request: pytest.FixtureRequest, own: Gateway) -> Iterator[Caller]:
    """Both blocking clients in turn."""
    made = CALLERS[request.param](own.http if request.param == "http" else own.grpc)
    yield made
    made.close()


def rows(*values: float) -> dict[str, np.ndarray]:
    """Rows of two values."""
    return {"x": np.array(values, np.float32).reshape(-1, 2)}


def texts(*values: bytes) -> dict[str, np.ndarray]:
    """Rows of two texts."""
    return {"x": np.array(values, np.object_).reshape(-1, 2)}


def count(gateway: Gateway, model: str, **labels: str) -> float:
    """Values that broke the contract of a model."""
    return metric(gateway, "penstock_input_violations_total", model=model, **labels)


def test_a_value_that_is_rejected_is_named(caller: Caller, own: Gateway) -> None:
    x = rows(1, 2, 3, 150)
    np.testing.assert_array_equal(caller.infer("rejects", x)["y"], x["x"])
    before = count(own, "rejects", feature="age", rule="range", action="reject")
    text = caller.refused(INVALID, "rejects", rows(1, 2, 3, 151))
    assert text.endswith(
        "input 'x', feature 'age' (index 1): the value 151.0 is not in the range 0.0 to 150.0 at "
        "[1, 1]"
    )
    text = caller.refused(INVALID, "rejects", rows(np.inf, 2))
    assert "input 'x': the value inf is not finite at [0, 0]" in text
    after = count(own, "rejects", feature="age", rule="range", action="reject")
    assert after == before + 1


def test_values_that_are_imputed_reach_the_model_mended(caller: Caller, own: Gateway) -> None:
    before = count(own, "imputes", action="impute")
    answer = caller.infer("imputes", rows(np.nan, -3, 5, 200, 9, np.nan))
    np.testing.assert_array_equal(answer["y"], rows(7.5, 0, 5, 150, 9, 7.5)["x"])
    assert count(own, "imputes", action="impute") == before + 4
    assert count(own, "imputes", action="impute", rule="missing", feature="") > 0
    assert count(own, "imputes", action="impute", rule="missing", feature="age") > 0


def test_values_that_are_flagged_pass_and_are_named(caller: Caller, own: Gateway) -> None:
    before = count(own, "flags", feature="age", rule="range", action="flag")
    x = rows(np.nan, 200, 1, -1)
    answer = caller.infer("flags", x)
    np.testing.assert_array_equal(answer["y"], x["x"])
    if caller.protocol == "grpc":
        flags = answer.result.get_response().parameters["penstock_flags"].string_param
        assert flags == "x.finite=1,x[age].range=2"
        fine = caller.infer("flags", rows(1, 2)).result.get_response()
        assert "penstock_flags" not in fine.parameters
    assert count(own, "flags", feature="age", rule="range", action="flag") == before + 2


def test_flags_stand_in_a_header(own: Gateway) -> None:
    def infer(*data: float) -> wire.Response:
        call = {"inputs": [wire.tensor("FP32", [1, 2], data)]}
        return wire.infer(own.http, "flags", call)

    assert infer(1, 151).headers["penstock-flags"] == "x[age].range=1"
    assert "penstock-flags" not in infer(1, 2).headers


def test_half_floats_are_clamped(own: Gateway) -> None:
    x = np.array([[-1, 0.25], [0.75, np.nan]], np.float16)
    with tritonclient.http.InferenceServerClient(own.http) as client:
        given = tritonclient.http.InferInput("x", [2, 2], "FP16").set_data_from_numpy(x)
        y = client.infer("halves", [given]).as_numpy("y")
    np.testing.assert_array_equal(y, np.array([[0, 0.25], [0.5, 0.25]], np.float16))


def test_texts_outside_the_categories_are_refused_and_not_repeated(caller: Caller) -> None:
    assert caller.infer("texts", texts(b"red", b"green"))["y"][0, 1] == b"green"
    text = caller.refused(INVALID, "texts", texts(b"red", b"hunter2"))
    assert "an element is none of 2 categories at [0, 1]" in text and "hunter2" not in text


def test_long_texts_are_cut_and_missing_ones_filled(caller: Caller) -> None:
    answer = caller.infer("cuts", texts("übermut".encode(), b""))
    assert answer["y"].tolist() == [["üb".encode(), b"?"]]


def test_an_optional_input_may_be_left_out(caller: Caller) -> None:
    answer = caller.infer("optional", rows(1, 2, 3, 4))
    np.testing.assert_array_equal(answer["w"], np.full((2, 2), 0.5, np.float32))
    given = caller.infer("optional", rows(1, 2) | {"v": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(given["w"], np.ones((1, 2), np.float32))
    text = caller.refused(INVALID, "optional", {"v": np.ones((1, 2), np.float32)})
    assert "input 'x' is missing" in text


def test_the_configuration_says_which_inputs_are_optional(own: Gateway) -> None:
    with tritonclient.http.InferenceServerClient(own.http) as client:
        config = client.get_model_config("optional")
    assert [entry.get("optional", False) for entry in config["input"]] == [False, True]


def test_a_replayed_answer_is_not_counted_again(own: Gateway) -> None:
    call = {"inputs": [wire.tensor("FP32", [1, 2], [1, 151])]}
    headers = {"idempotency-key": "contract"}
    before = count(own, "flags", action="flag")
    told = [wire.infer(own.http, "flags", call, headers) for _ in range(3)]
    assert {answer.headers["penstock-flags"] for answer in told} == {"x[age].range=1"}
    assert count(own, "flags", action="flag") == before + 1
