"""Many calls at once: everybody gets exactly its own rows."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from calls import grpc_inputs, http_inputs
from harness import Gateway

Inputs = dict[str, np.ndarray]


def inputs(call: int) -> Inputs:
    """Inputs that only this call has, of 1 to 3 rows."""
    rows = call % 3 + 1
    a = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) + 1000 * call
    return {"a": a, "b": np.full_like(a, 0.5)}


def check(call: int, result: Any) -> None:
    """The answer is that of this very call."""
    sent = inputs(call)
    np.testing.assert_array_equal(result.as_numpy("sum"), sent["a"] + sent["b"])
    np.testing.assert_array_equal(result.as_numpy("difference"), sent["a"] - sent["b"])


def executions(gateway: Gateway, model: str) -> tuple[int, int]:
    """Rows that ran, by batch size, and rows that were answered."""
    with tritonclient.http.InferenceServerClient(gateway.http) as client:
        [entry] = client.get_inference_statistics(model)["model_stats"]
    ran = sum(b["batch_size"] * b["compute_infer"]["count"] for b in entry["batch_stats"])
    return ran, entry["inference_count"]


def test_64_calls_in_flight_over_http(gateway: Gateway) -> None:
    before = executions(gateway, "add_sub")
    with tritonclient.http.InferenceServerClient(gateway.http, concurrency=64) as client:
        waiting = [client.async_infer("add_sub", http_inputs(inputs(call))) for call in range(256)]
        for call, answer in enumerate(waiting):
            check(call, answer.get_result(timeout=30))
    rows = sum(call % 3 + 1 for call in range(256))
    after = executions(gateway, "add_sub")
    assert (after[0] - before[0], after[1] - before[1]) == (rows, rows)


def test_64_calls_in_flight_over_grpc(gateway: Gateway) -> None:
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
        for begin in range(0, 256, 64):
            for call in range(begin, begin + 64):
                client.async_infer(
                    "add_sub", grpc_inputs(inputs(call)),
                    callback=lambda result, error, call=call: answers.put((call, result, error)),
                )  # fmt: skip
            for _ in range(64):
                call, result, error = answers.get(timeout=30)
                assert error is None, error
                check(call, result)


def test_200_calls_gathered_over_http(gateway: Gateway) -> None:
    async def run() -> None:
        async with tritonclient.http.aio.InferenceServerClient(gateway.http) as client:
            calls = [client.infer("add_sub", http_inputs(inputs(call))) for call in range(200)]
            for call, result in enumerate(await asyncio.gather(*calls)):
                check(call, result)

    asyncio.run(run())


def test_200_calls_gathered_over_grpc(gateway: Gateway) -> None:
    async def run() -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(gateway.grpc) as client:
            calls = [client.infer("add_sub", grpc_inputs(inputs(call))) for call in range(200)]
            for call, result in enumerate(await asyncio.gather(*calls)):
                check(call, result)

    asyncio.run(run())


def test_the_same_id_may_be_used_by_many_calls_at_once(gateway: Gateway) -> None:
    """Trap 29."""

    async def run() -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(gateway.grpc) as client:
            calls = [
                client.infer("add_sub", grpc_inputs(inputs(call)), request_id="same")
                for call in range(50)
            ]
            for call, result in enumerate(await asyncio.gather(*calls)):
                check(call, result)
                assert result.get_response().id == "same"

    asyncio.run(run())


def test_bytes_of_many_lengths_find_back_to_their_callers(gateway: Gateway) -> None:
    def text(call: int) -> np.ndarray:
        return np.array([[str(call).encode() * (call % 7 + i) for i in range(2)]], np.object_)

    async def run() -> None:
        async with tritonclient.http.aio.InferenceServerClient(gateway.http) as client:
            calls = [
                client.infer("identity_bytes", http_inputs({"x": text(c)})) for c in range(200)
            ]
            for call, result in enumerate(await asyncio.gather(*calls)):
                assert result.as_numpy("y").tolist() == text(call).tolist()

    asyncio.run(run())


def test_bad_rows_among_many_hurt_only_their_own_callers(gateway: Gateway) -> None:
    def row(call: int) -> np.ndarray:
        sign = -1 if call % 16 == 5 else 1
        return np.array([[sign * (call + 1), 1]], np.float32)

    async def run() -> list[Any]:
        async with tritonclient.grpc.aio.InferenceServerClient(gateway.grpc) as client:
            calls = [client.infer("throws", grpc_inputs({"x": row(call)})) for call in range(96)]
            return await asyncio.gather(*calls, return_exceptions=True)

    for call, result in enumerate(asyncio.run(run())):
        if call % 16 == 5:
            assert isinstance(result, InferenceServerException), result
            assert result.status() == "StatusCode.INVALID_ARGUMENT"
            assert "hunter2" not in str(result)
        else:
            assert not isinstance(result, BaseException), result
            np.testing.assert_array_equal(result.as_numpy("y"), row(call) * 2)


def test_callers_that_give_up_leave_the_others_alone(gateway: Gateway) -> None:
    async def run() -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(gateway.grpc) as client:
            slow = {"loops": np.array([[2_000_000]], np.int64)}
            impatient = [
                asyncio.create_task(client.infer("slow", grpc_inputs(slow), client_timeout=0.05))
                for _ in range(20)
            ]
            calls = [client.infer("add_sub", grpc_inputs(inputs(call))) for call in range(50)]
            for call, result in enumerate(await asyncio.gather(*calls)):
                check(call, result)
            for ended in await asyncio.gather(*impatient, return_exceptions=True):
                if isinstance(ended, BaseException):
                    assert ended.status() == "StatusCode.DEADLINE_EXCEEDED"

    asyncio.run(run())
