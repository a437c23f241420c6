"""Idempotency keys: repeats get the first answer, over both protocols, and nothing runs twice."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import wire
from calls import CALLERS, INVALID, Caller, grpc_inputs, refusal
from harness import Gateway, metric

X = {"x": np.array([[1.0, 2.0]], np.float32)}
MODEL = "identity_fp32"
MISMATCH = ("422", "StatusCode.FAILED_PRECONDITION")
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def own(start_gateway: Any) -> Gateway:
    """A gateway whose statistics no other test moves; it keeps answers of up to 1 KiB."""
    return start_gateway('[idempotency]\nmax_answer = "1KiB"\n')


@pytest.fixture(params=CALLERS)
def caller(request: pytest.FixtureRequest, own: Gateway) -> Iterator[Caller]:
    """Each of the four clients in turn."""
    address = own.http if request.param.startswith("http") else own.grpc
    made = CALLERS[request.param](address)
    yield made
    made.close()


@pytest.fixture
def key() -> dict[str, str]:
    """Headers with a key that no other test has."""
    return {"idempotency-key": f"key-{next(NUMBERS)}"}


def runs(gateway: Gateway) -> int:
    """Batches that the model has run."""
    with tritonclient.http.InferenceServerClient(gateway.http) as client:
        [entry] = client.get_inference_statistics(MODEL)["model_stats"]
    return int(entry["execution_count"])


def body(value: float = 1.0) -> dict[str, Any]:
    """The call of the other tests, in JSON."""
    return {"inputs": [wire.tensor("FP32", [1, 2], [value, 2.0])]}


def test_repeats_run_once(caller: Caller, own: Gateway, key: dict[str, str]) -> None:
    before = runs(own)
    for number in range(5):
        answer = caller.infer(MODEL, X, headers=key, request_id=str(number))
        np.testing.assert_array_equal(answer["y"], X["x"])
        assert answer.id == str(number), "each repeat has its own id"
    assert runs(own) == before + 1


def test_without_a_key_every_call_runs(caller: Caller, own: Gateway) -> None:
    before = runs(own)
    for _ in range(3):
        caller.infer(MODEL, X)
    assert runs(own) == before + 3


def test_repeats_at_the_same_time_run_once(own: Gateway, key: dict[str, str]) -> None:
    before, answers = runs(own), queue.Queue()
    start = threading.Barrier(16)

    def call() -> None:
        start.wait()
        answers.put(wire.infer(own.http, MODEL, body(), key))

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [answers.get() for _ in threads]
    assert {answer.status for answer in told} == {200}
    assert len({answer.body for answer in told}) == 1
    first = [answer for answer in told if "penstock-replayed" not in answer.headers]
    assert len(first) == 1
    assert runs(own) == before + 1


def test_a_repeat_may_come_over_another_protocol_and_in_another_form(
    own: Gateway, key: dict[str, str]
) -> None:
    before = runs(own)
    first = wire.infer(own.http, MODEL, body(), key)
    assert first.status == 200 and "penstock-replayed" not in first.headers
    again = wire.infer(own.http, MODEL, body(), key)
    assert again.headers["penstock-replayed"] == "true" and again.body == first.body
    for name, make in CALLERS.items():
        made = make(own.http if name.startswith("http") else own.grpc)
        # The HTTP client adds headers of its own to what it is given.
        answer = made.infer(MODEL, X, headers=dict(key))
        np.testing.assert_array_equal(answer["y"], X["x"])
        if made.protocol == "grpc":
            assert answer.result.get_response().parameters["penstock_replayed"].bool_param
        made.close()
    assert runs(own) == before + 1
    assert metric(own, "penstock_requests_total", model=MODEL, outcome="replayed") >= 5


def test_another_body_under_the_same_key_is_refused(caller: Caller, key: dict[str, str]) -> None:
    caller.infer(MODEL, X, headers=key)
    text = caller.refused(MISMATCH, MODEL, {"x": X["x"] + 1}, headers=key)
    assert "another body" in text and key["idempotency-key"] not in text
    caller.infer(MODEL, X, headers=key)


def test_another_model_may_use_the_same_key(caller: Caller, key: dict[str, str]) -> None:
    caller.infer(MODEL, X, headers=key)
    text = {"x": np.array([[b"a"]], np.object_)}
    assert caller.infer("identity_bytes", text, headers=key)["y"][0, 0] == b"a"


@pytest.mark.parametrize("bad", ["k" * 256, "a\tb"])
def test_a_malformed_key_is_refused(own: Gateway, bad: str) -> None:
    answer = wire.infer(own.http, MODEL, body(), {"idempotency-key": bad})
    assert answer.status == 400
    assert "1 to 255 printable ASCII characters" in answer.error()


def test_an_empty_key_is_refused(own: Gateway) -> None:
    assert wire.infer(own.http, MODEL, body(), {"idempotency-key": ""}).status == 400
    with tritonclient.grpc.InferenceServerClient(own.grpc) as client:
        call = lambda: client.infer(MODEL, grpc_inputs(X), headers={"idempotency-key": "a" * 256})
        assert refusal(call)[0] == INVALID[1]


def test_a_refusal_before_the_run_is_forgotten(own: Gateway, key: dict[str, str]) -> None:
    missing = {"inputs": [wire.tensor("FP32", [1, 2], [1.0, 2.0], "z")]}
    for _ in range(2):
        answer = wire.infer(own.http, MODEL, missing, key)
        assert answer.status == 400 and "penstock-replayed" not in answer.headers
    # The key is free: another body is no mismatch.
    assert wire.infer(own.http, MODEL, body(), key).status == 200


def test_an_answer_that_is_too_large_to_keep_runs_again(own: Gateway, key: dict[str, str]) -> None:
    large = {"inputs": [wire.tensor("FP32", [1, 300], [0.5] * 300)]}
    before = runs(own)
    lost = metric(own, "penstock_idempotency_lost_total", reason="too_large")
    for _ in range(2):
        answer = wire.infer(own.http, MODEL, large, key)
        assert answer.status == 200 and "penstock-replayed" not in answer.headers
    assert runs(own) == before + 2
    assert metric(own, "penstock_idempotency_lost_total", reason="too_large") == lost + 2


def test_each_message_of_a_stream_has_its_own_key(own: Gateway) -> None:
    before, answers = runs(own), queue.Queue()
    keys = [f"stream-{number % 3}" for number in range(9)]
    with tritonclient.grpc.InferenceServerClient(own.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for key in keys:
            client.async_stream_infer(
                MODEL, grpc_inputs(X), parameters={"idempotency_key": key}, request_id=key
            )
        told = [answers.get(timeout=30) for _ in keys]
        client.stop_stream()
    for (result, error), key in zip(told, keys, strict=True):
        assert error is None and result.get_response().id == key
    replayed = ["penstock_replayed" in r.get_response().parameters for r, _ in told]
    assert replayed.count(False) == 3
    assert runs(own) <= before + 3


def test_a_stream_as_a_whole_has_no_key(own: Gateway, key: dict[str, str]) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(own.grpc) as client:
        client.start_stream(lambda result, error: answers.put(error), headers=key)
        error = answers.get(timeout=30)
        client.stop_stream()
    assert "idempotency_key" in str(error)


def test_keys_have_no_effect_where_they_are_switched_off(start_gateway: Any) -> None:
    gateway = start_gateway("[idempotency]\nenabled = false\n")
    before = runs(gateway)
    for _ in range(2):
        assert wire.infer(gateway.http, MODEL, body(), {"idempotency-key": "a"}).status == 200
    assert runs(gateway) == before + 2
