"""What a caller gets wrong, and the exact status that every client sees for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import wire
from calls import INVALID, NOT_FOUND, Arrays, Caller
from harness import Gateway

GOOD: Arrays = {"a": np.ones((2, 4), np.float32), "b": np.ones((2, 4), np.float32)}
SECRETS = ("hunter2", "/srv/export", "train.py", "AssertionError", "Traceback", "torch")


@pytest.fixture(autouse=True)
def still_answers(caller: Caller) -> Iterator[None]:
    """After every refusal, the same connection is good for an answer."""
    yield
    np.testing.assert_array_equal(caller.infer("add_sub", GOOD)["sum"], GOOD["a"] * 2)


def test_an_unknown_model_is_not_found_in_the_words_that_programs_look_for(caller: Caller) -> None:
    """Trap 21."""
    text = caller.refused(NOT_FOUND, "nobody", GOOD)
    assert "Request for unknown model: 'nobody' is not found" in text


@pytest.mark.parametrize("version", ["9", "3", "0", "-1", "01", "latest", "9" * 30])
def test_an_unknown_version_is_not_found(caller: Caller, version: str) -> None:
    pixels = np.zeros((1, 64), np.float32)
    text = caller.refused(NOT_FOUND, "digits", {"pixels": pixels}, model_version=version)
    assert version[:10] in text


@pytest.mark.parametrize("name", ["a/b", "../digits", "a b", "ü", "%2e%2e", "a\\b", "x" * 300])
def test_names_that_no_model_can_have_are_not_found(caller: Caller, name: str) -> None:
    """Trap 6: clients leave slashes in names as they are."""
    caller.refused(NOT_FOUND, name, GOOD)


def renamed(old: str, new: str) -> Arrays:
    """The good inputs with another name for one of them."""
    return {new if name == old else name: array for name, array in GOOD.items()}


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (renamed("a", "c"), ["'c'", "'a'"]),
        ({"a": GOOD["a"]}, ["'b'", "missing"]),
        ({}, ["missing"]),
        (GOOD | {"c": GOOD["a"]}, ["'c'"]),
        (GOOD | {"a": np.ones((2, 4), np.float64)}, ["'a'", "FP64", "FP32"]),
        (GOOD | {"a": np.ones((2, 4), np.int32)}, ["'a'", "INT32", "FP32"]),
        (GOOD | {"a": np.array([[b"x"] * 4] * 2, np.object_)}, ["'a'", "BYTES"]),
        (GOOD | {"a": np.ones((2, 5), np.float32)}, ["'a'", "shape"]),
        (GOOD | {"a": np.ones((8,), np.float32)}, ["'a'", "shape"]),
        (GOOD | {"a": np.ones((2, 4, 1), np.float32)}, ["'a'", "shape"]),
        ({name: array[:0] for name, array in GOOD.items()}, ["batch size 0"]),
        (GOOD | {"b": np.ones((3, 4), np.float32)}, ["batch size"]),
    ],
    ids=[
        "wrong-name", "missing", "none", "extra", "wrong-float", "wrong-integer", "text", "wrong-size",
        "lower-rank", "higher-rank", "batch-0", "unequal-batches",
    ],
)  # fmt: skip
def test_wrong_inputs_are_refused_by_name(caller: Caller, inputs: Arrays, words: list[str]) -> None:
    text = caller.refused(INVALID, "add_sub", inputs)
    for word in words:
        assert word in text


def test_an_input_given_twice_is_refused(caller: Caller) -> None:
    text = caller.refused(INVALID, "add_sub", GOOD, again=["a"])
    assert "twice" in text


def test_what_a_model_says_when_it_fails_stays_inside(caller: Caller, gateway: Gateway) -> None:
    bad = np.array([[1, 2], [-1, 2]], np.float32)
    text = caller.refused(INVALID, "throws", {"x": bad})
    assert text.startswith("model throws/1: ")
    for secret in SECRETS:
        assert secret not in text
    good = np.abs(bad)
    np.testing.assert_array_equal(caller.infer("throws", {"x": good})["y"], good * 2)


def test_the_headers_of_a_failure_keep_the_secret_too(gateway: Gateway, caller: Caller) -> None:
    body = {"inputs": [wire.tensor("FP32", [1, 2], [-1.0, 0.0])]}
    answer = wire.infer(gateway.http, "throws", body)
    assert answer.status == 400
    everything = str(answer.headers) + answer.error()
    assert not [secret for secret in SECRETS if secret in everything]
