"""The schedule policy extension: which call runs first, and which one is too late."""

from __future__ import annotations

import queue
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

import wire
from busy import ONE_THREAD, busy, in_threads, loops, wait_for_queue
from calls import TOO_LATE, grpc_inputs, http_inputs, refusal
from harness import Gateway, add_to_manifest, metric, set_max_batch_size, wait_until, waiting

SECOND = 1_000_000
# Long enough that one answer is read before the next comes.
SHORT = 2_000_000


def one_by_one(repository: Path) -> None:
    """Lets the slow model share no batches, so that each call has its turn."""
    set_max_batch_size(repository / "slow", 1)


@pytest.fixture(scope="module")
def single(start_gateway: Any) -> Gateway:
    """A gateway with one engine thread."""
    return start_gateway(ONE_THREAD, "slow", "times", prepare=one_by_one)


def slow_message(turns: int) -> pb.ModelInferRequest:
    """A call of the slow model."""
    message = pb.ModelInferRequest(model_name="slow")
    message.inputs.add(name="loops", datatype="INT64", shape=[1, 1])
    message.raw_input_contents.append(struct.pack("<q", turns))
    return message


def over_grpc(field: str, gateway: Gateway, priority: int) -> int:
    """A call with this priority, in a field of the parameter; gives the priority back."""
    message = slow_message(SHORT)
    setattr(message.parameters["priority"], field, priority)
    with grpc.insecure_channel(gateway.grpc) as channel:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=60)
    return priority


def over_http(gateway: Gateway, priority: int) -> int:
    """A call with this priority, as a number in JSON; gives the priority back."""
    body = loops(SHORT) | {"parameters": {"priority": priority}}
    answer = wire.infer(gateway.http, "slow", body)
    assert answer.status == 200, answer
    return priority


WAYS: dict[str, Callable[[Gateway, int], int]] = {
    "int64": lambda gateway, priority: over_grpc("int64_param", gateway, priority),
    "uint64": lambda gateway, priority: over_grpc("uint64_param", gateway, priority),
    "json": over_http,
}


@pytest.mark.parametrize("way", WAYS)
def test_the_most_urgent_of_the_waiting_calls_runs_first(single: Gateway, way: str) -> None:
    """Trap 17: `priority` comes as int64, as uint64 or as a number in JSON; 0 is the default, 5."""
    with busy(single) as is_busy:
        threads, order = in_threads(
            [lambda priority=priority: WAYS[way](single, priority) for priority in (9, 0, 1)]
        )
        wait_for_queue(single, "slow", 3, is_busy)
    for thread in threads:
        thread.join()
    assert order == [1, 0, 9]


def test_a_priority_beyond_the_last_level_counts_as_the_last(single: Gateway) -> None:
    for priority in (10, 2**31, 2**63 - 1):
        assert over_http(single, priority) == priority
    assert over_grpc("uint64_param", single, 2**64 - 1)


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, single: Gateway) -> Any:
    """Both blocking clients in turn, connected to the gateway with one thread."""
    module = getattr(tritonclient, request.param)
    with module.InferenceServerClient(getattr(single, request.param)) as made:
        made.protocol = request.param
        yield made


def infer(client: Any, model: str, array: np.ndarray, name: str, **options: Any) -> Any:
    """A call of either client."""
    make = http_inputs if client.protocol == "http" else grpc_inputs
    return client.infer(model, make({name: array}), **options)


ONE = np.ones((1, 1), np.float32)


def test_a_timeout_that_passes_is_answered_while_the_engine_is_still_busy(
    single: Gateway, client: Any
) -> None:
    """Trap 16: in microseconds, from the arrival of the call."""
    dropped = lambda: metric(
        single, "penstock_calls_dropped_total", model="times", reason="expired"
    )
    before = dropped()
    runs = metric(single, "nv_inference_exec_count", model="times")
    with busy(single) as is_busy:
        status, text = refusal(lambda: infer(client, "times", ONE, "x", timeout=SECOND // 10))
        assert is_busy(), "nobody waits for the engine beyond the timeout"
        assert status == TOO_LATE[client.protocol == "grpc"], text
        assert "deadline" in text
        assert dropped() == before, "it leaves the queue when its turn comes"
    wait_until(lambda: dropped() == before + 1)
    assert waiting(single, "times") == 0
    assert metric(single, "nv_inference_exec_count", model="times") == runs, "it cost no run"


def test_a_timeout_that_passes_on_a_stream_leaves_the_stream_open(single: Gateway) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    inputs = grpc_inputs({"x": ONE})
    with tritonclient.grpc.InferenceServerClient(single.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        with busy(single) as is_busy:
            client.async_stream_infer("times", inputs, timeout=SECOND // 10)
            _, error = answers.get(timeout=30)
            assert is_busy()
            assert "deadline" in error.message()
        client.async_stream_infer("times", inputs, timeout=60 * SECOND)
        result, error = answers.get(timeout=30)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("y"), ONE * 2)


def test_a_timeout_holds_for_all_parts_of_a_large_call(single: Gateway, client: Any) -> None:
    large = np.ones((25, 1), np.float32)
    runs = metric(single, "nv_inference_exec_count", model="times")
    with busy(single) as is_busy:
        status, text = refusal(lambda: infer(client, "times", large, "x", timeout=SECOND // 10))
        assert is_busy()
        assert status == TOO_LATE[client.protocol == "grpc"], text
    wait_until(lambda: metric(single, "penstock_queue_rows", model="times") == 0)
    assert metric(single, "nv_inference_exec_count", model="times") == runs


def test_a_timeout_that_does_not_pass_changes_nothing(single: Gateway, client: Any) -> None:
    for timeout in (0, 60 * SECOND, 2**62):
        answer = infer(client, "times", ONE, "x", timeout=timeout)
        np.testing.assert_array_equal(answer.as_numpy("y"), ONE * 2)


def test_refused_calls_that_came_too_late_are_counted_as_such(single: Gateway) -> None:
    count = lambda: metric(
        single, "penstock_requests_total", model="times", outcome="deadline_exceeded"
    )
    before = count()
    body = {"inputs": [wire.tensor("FP32", [1, 1], [1.0])], "parameters": {"timeout": 1}}
    with busy(single, SHORT):
        answer = wire.infer(single.http, "times", body)
    assert answer.status == 504 and "deadline" in answer.error()
    assert count() == before + 1


@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize("value", [-1, 1.5, "high", "1", True, [1], {"a": 1}, 2**64])
def test_wrong_values_over_http_are_refused_by_name(single: Gateway, name: str, value: Any) -> None:
    body = {"inputs": [wire.tensor("FP32", [1, 1], [1.0])], "parameters": {name: value}}
    answer = wire.infer(single.http, "times", body)
    assert answer.status == 400 and f"'{name}'" in answer.error()
    body["parameters"] = {}
    assert wire.infer(single.http, "times", body).status == 200


@pytest.mark.parametrize("name", ["priority", "timeout"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("int64_param", -1), ("double_param", 1.0), ("string_param", "1"), ("bool_param", True)],
)
def test_wrong_values_over_grpc_are_refused_by_name(
    single: Gateway, name: str, field: str, value: Any
) -> None:
    message = slow_message(1)
    setattr(message.parameters[name], field, value)
    with grpc.insecure_channel(single.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(message, timeout=60)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert f"'{name}'" in refused.value.details()


def test_a_model_may_refuse_at_once_what_it_cannot_answer_in_time(start_gateway: Any) -> None:
    def prepare(repository: Path) -> None:
        add_to_manifest(repository / "slow", "[batching]\nrefuse_late = true")

    prompt = start_gateway(ONE_THREAD, "slow", prepare=prepare)
    late = lambda: metric(prompt, "penstock_calls_refused_late_total", model="slow")
    # It learns what a run takes; until then nothing is refused.
    for _ in range(5):
        assert wire.infer(prompt.http, "slow", loops(SHORT)).status == 200
    impatient = loops(SHORT) | {"parameters": {"timeout": 2_000}}
    answer = wire.infer(prompt.http, "slow", impatient)
    assert answer.status == 504 and "would answer after the deadline" in answer.error()
    assert int(answer.headers["retry-after"]) >= 1
    assert late() == 1
    assert wire.infer(prompt.http, "slow", loops(SHORT)).status == 200


def test_a_model_with_one_instance_leaves_the_other_threads_to_others(start_gateway: Any) -> None:
    def prepare(repository: Path) -> None:
        one_by_one(repository)
        add_to_manifest(repository / "slow", "[batching]\ninstances = 1")

    pair = start_gateway("[engine]\ncpu_threads = 2\n", "slow", "times", prepare=prepare)
    with busy(pair) as is_busy:
        threads, ended = in_threads([lambda: wire.infer(pair.http, "slow", loops(1))])
        wait_for_queue(pair, "slow", 1, is_busy)
        body = {"inputs": [wire.tensor("FP32", [1, 1], [1.0])]}
        assert wire.infer(pair.http, "times", body).status == 200
        assert is_busy() and waiting(pair, "slow") == 1 and not ended
    for thread in threads:
        thread.join()
    assert [answer.status for answer in ended] == [200]
