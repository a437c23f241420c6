"""ModelStreamInfer: order, errors in their place, and how a stream ends."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from calls import grpc_inputs
from harness import Gateway

Item = tuple[Any, Any]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Any]:
    """A client of its own: it can hold one stream."""
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as made:
        yield made


def row(value: float) -> dict[str, np.ndarray]:
    """An input of the model `throws`, which fails for negative values."""
    return {"x": np.array([[value, value + 0.5]], np.float32)}


def stream(client: Any, send: Callable[[], None], count: int, **options: Any) -> list[Item]:
    """Opens a stream, sends, and collects `count` answers."""
    answers: queue.Queue[Item] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)), **options)
    try:
        send()
        return [answers.get(timeout=30) for _ in range(count)]
    finally:
        client.stop_stream()


def test_answers_come_in_order_and_are_final(client: Any) -> None:
    """Trap 14: each message is a ModelStreamInferResponse. Each answer is its call's last."""

    def send() -> None:
        for value in range(40):
            client.async_stream_infer("throws", grpc_inputs(row(value)), request_id=str(value))

    for value, (result, error) in enumerate(stream(client, send, 40)):
        assert error is None
        message = result.get_response()
        assert message.id == str(value)
        assert message.parameters["triton_final_response"].bool_param is True
        np.testing.assert_array_equal(result.as_numpy("y"), row(value)["x"] * 2)


def test_an_error_stands_in_its_place_and_the_stream_goes_on(client: Any) -> None:
    def send() -> None:
        infer = client.async_stream_infer
        infer("throws", grpc_inputs(row(1)))
        infer("nobody", grpc_inputs(row(2)))
        infer("throws", grpc_inputs(row(-3)))
        infer("throws", grpc_inputs({"wrong": row(4)["x"]}))
        infer("digits", grpc_inputs({"pixels": np.zeros((1, 64), np.float32)}), model_version="9")
        infer("throws", grpc_inputs(row(6)))

    answers = stream(client, send, 6)
    failed = [error is not None for _, error in answers]
    assert failed == [False, True, True, True, True, False]
    texts = [error.message() for _, error in answers if error]
    assert "Request for unknown model: 'nobody' is not found" in texts[0]
    assert "hunter2" not in texts[1]
    assert "'wrong'" in texts[2]
    np.testing.assert_array_equal(answers[5][0].as_numpy("y"), row(6)["x"] * 2)


def test_one_stream_may_call_several_models(client: Any) -> None:
    def send() -> None:
        x = np.array([[b"a", b"\xff"]], np.object_)
        client.async_stream_infer("identity_bytes", grpc_inputs({"x": x}))
        client.async_stream_infer("times", grpc_inputs({"x": np.array([[4]], np.float32)}))

    (first, _), (second, _) = stream(client, send, 2)
    assert first.as_numpy("y").tolist() == [[b"a", b"\xff"]]
    assert second.as_numpy("y").tolist() == [[8]]


def test_asking_for_an_empty_final_response_changes_nothing_for_models_that_answer_once(
    client: Any,
) -> None:
    """Trap 18: the C++ client always asks."""

    def send() -> None:
        for value in range(3):
            client.async_stream_infer(
                "throws", grpc_inputs(row(value)), enable_empty_final_response=True
            )

    answers = stream(client, send, 3)
    for value, (result, error) in enumerate(answers):
        assert error is None
        assert result.get_response().parameters["triton_final_response"].bool_param is True
        np.testing.assert_array_equal(result.as_numpy("y"), row(value)["x"] * 2)


def test_a_caller_may_ask_for_a_status_at_the_first_error(client: Any) -> None:
    def send() -> None:
        client.async_stream_infer("throws", grpc_inputs(row(1)))
        client.async_stream_infer("nobody", grpc_inputs(row(2)))

    answers = stream(client, send, 2, headers={"triton_grpc_error": "true"})
    np.testing.assert_array_equal(answers[0][0].as_numpy("y"), row(1)["x"] * 2)
    error = answers[1][1]
    assert error.status() == "StatusCode.NOT_FOUND"
    assert "'nobody'" in error.message()


def test_a_stream_that_sends_nothing_ends_well(client: Any) -> None:
    assert stream(client, lambda: None, 0) == []


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_streams_may_be_compressed(client: Any, compression: str) -> None:
    def send() -> None:
        client.async_stream_infer("throws", grpc_inputs(row(5)))

    [(result, error)] = stream(client, send, 1, compression_algorithm=compression)
    assert error is None
    np.testing.assert_array_equal(result.as_numpy("y"), row(5)["x"] * 2)


def test_the_asyncio_client_streams_too(gateway: Gateway) -> None:
    async def run() -> list[Item]:
        async def requests() -> AsyncIterator[dict[str, Any]]:
            for value in (1, -2, 3):
                yield {"model_name": "throws", "inputs": grpc_inputs(row(value))}

        async with tritonclient.grpc.aio.InferenceServerClient(gateway.grpc) as client:
            return [item async for item in client.stream_infer(requests())]

    answers = asyncio.run(run())
    assert [error is not None for _, error in answers] == [False, True, False]
    assert isinstance(answers[1][1], InferenceServerException)
    np.testing.assert_array_equal(answers[2][0].as_numpy("y"), row(3)["x"] * 2)


def test_cancelling_a_stream_leaves_the_gateway_well(client: Any, gateway: Gateway) -> None:
    answers: queue.Queue[Item] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for value in range(200):
        client.async_stream_infer("throws", grpc_inputs(row(value)))
    answers.get(timeout=30)
    client.stop_stream(cancel_requests=True)
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as other:
        assert other.infer("throws", grpc_inputs(row(1))).as_numpy("y") is not None
