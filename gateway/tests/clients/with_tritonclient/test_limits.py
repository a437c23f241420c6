"""Sizes and times: bodies too large, bombs, slow senders, and models that hang."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http

import wire
from calls import CALLERS, FAILED, grpc_inputs, http_inputs, refusal
from harness import Gateway, running, wait_until, waiting

MIB = 1 << 20
ROW = {"inputs": [wire.tensor("FP32", [1, 3], [1.0, 2.0, 3.0])]}
INFER = "/v2/models/identity_bytes/infer"


@pytest.fixture(scope="module")
def tight(start_gateway: Any) -> Gateway:
    """A gateway with small limits."""
    limits = 'max_request = "1MiB"\nheader_timeout = "500ms"\nbody_timeout = "500ms"\n'
    return start_gateway(f"[limits]\n{limits}", "times")


@pytest.fixture(autouse=True)
def still_answers(tight: Gateway) -> Iterator[None]:
    """Whatever a test sent, the next caller gets its answer."""
    yield
    assert wire.infer(tight.http, "identity_fp32", ROW).status == 200


def text_request(size: int) -> bytes:
    """A request with one text of `size` bytes."""
    return json.dumps({"inputs": [wire.tensor("BYTES", [1, 1], ["a" * size])]}).encode()


def too_large(answer: wire.Response) -> None:
    assert answer.status == 413
    assert "limits.max_request" in answer.error()


def test_a_body_at_the_limit_passes_and_one_byte_more_does_not(tight: Gateway) -> None:
    overhead = len(text_request(0))
    at_limit = wire.request(tight.http, "POST", INFER, text_request(MIB - overhead))
    assert at_limit.status == 200
    too_large(wire.request(tight.http, "POST", INFER, text_request(MIB - overhead + 1)))


@pytest.mark.parametrize("target", [INFER, "/v2/repository/index", "/v2/logging"])
def test_a_declared_length_beyond_the_limit_is_refused_before_the_body(
    tight: Gateway, target: str
) -> None:
    """Trap 22: also lengths that no signed 32-bit number holds."""
    for length in (MIB + 1, 2**31, 2**40):
        with wire.connect(tight.http) as connection:
            head = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode())
            received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 413 "), received


def test_a_chunked_body_beyond_the_limit_is_refused(tight: Gateway) -> None:
    too_large(wire.request(tight.http, "POST", INFER, (b"a" * 65536 for _ in range(64))))


def test_a_chunked_body_within_the_limit_is_answered(tight: Gateway) -> None:
    text = text_request(1000)
    pieces = (text[i : i + 100] for i in range(0, len(text), 100))
    assert wire.request(tight.http, "POST", INFER, pieces).status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_refused_at_the_limit(tight: Gateway, coding: str) -> None:
    pack = gzip.compress if coding == "gzip" else zlib.compress
    bomb = pack(text_request(200 * MIB), 9)
    assert len(bomb) < MIB
    for target in (INFER, "/v2/repository/index"):
        answer = wire.request(tight.http, "POST", target, bomb, {"Content-Encoding": coding})
        too_large(answer)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_grpc_message_beyond_the_limit_is_refused(
    tight: Gateway, compression: grpc.Compression
) -> None:
    x = np.zeros((8, 8 * MIB // 4), np.float32)
    algorithm = "gzip" if compression == grpc.Compression.Gzip else None
    with tritonclient.grpc.InferenceServerClient(tight.grpc) as client:
        status, text = refusal(
            lambda: client.infer(
                "identity_fp32", grpc_inputs({"x": x}), compression_algorithm=algorithm
            )
        )
        assert status == "StatusCode.RESOURCE_EXHAUSTED", text
        small = client.infer("identity_fp32", grpc_inputs({"x": x[:, :4]}))
        assert small.as_numpy("y").shape == (8, 4)


def test_a_large_answer_passes_although_its_request_could_not_be_larger(gateway: Gateway) -> None:
    x = np.ones((8, 1_500_000), np.float32)
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
        np.testing.assert_array_equal(
            client.infer("identity_fp32", grpc_inputs({"x": x})).as_numpy("y"), x
        )
    with tritonclient.http.InferenceServerClient(gateway.http) as client:
        np.testing.assert_array_equal(
            client.infer("identity_fp32", http_inputs({"x": x})).as_numpy("y"), x
        )


def closed_within(connection: Any, seconds: float) -> bytes:
    """What comes until the other side closes, which must be soon."""
    connection.settimeout(seconds)
    return wire.read_until_closed(connection)


@pytest.mark.parametrize(
    "begin", [b"", b"POST /v2/models/ident", b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: y"]
)
def test_a_head_that_does_not_come_ends_the_connection(tight: Gateway, begin: bytes) -> None:
    with wire.connect(tight.http) as connection:
        connection.sendall(begin)
        received = closed_within(connection, 5)
    assert received == b"" or received.startswith(b"HTTP/1.1 408")


def test_a_head_that_trickles_ends_the_connection(tight: Gateway) -> None:
    with wire.connect(tight.http) as connection:
        begun = time.monotonic()
        try:
            for byte in b"GET /v2 HTTP/1.1\r\nHost: " + b"a" * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - begun < 4, "the sender was cut off"


def test_a_body_that_does_not_come_is_a_timeout(tight: Gateway) -> None:
    for target in (INFER, "/v2/repository/index"):
        with wire.connect(tight.http) as connection:
            head = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
            connection.sendall(head.encode() + b'{"inputs"')
            received = closed_within(connection, 5)
        assert received.startswith(b"HTTP/1.1 408 "), received
        assert b'{"error":' in received


def test_a_body_that_trickles_is_a_timeout(tight: Gateway) -> None:
    with wire.connect(tight.http) as connection:
        connection.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n".encode()
        )
        begun = time.monotonic()
        try:
            for _ in range(100):
                connection.sendall(b" ")
                time.sleep(0.05)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert time.monotonic() - begun < 4, "the sender was cut off"


def test_a_grpc_message_that_does_not_come_is_a_timeout(tight: Gateway) -> None:
    headers = {
        b":method": b"POST", b":scheme": b"http", b":authority": b"a", b"te": b"trailers",
        b":path": b"/inference.GRPCInferenceService/ModelInfer", b"content-type": b"application/grpc",
    }  # fmt: skip
    pseudo_first = sorted(headers.items(), key=lambda item: not item[0].startswith(b":"))
    block = b"".join(wire.literal(name, value) for name, value in pseudo_first)
    with wire.connect(tight.grpc) as connection:
        connection.settimeout(5)
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + wire.frame(4, 0, 0))
        connection.sendall(wire.frame(1, 4, 1, block))
        connection.sendall(wire.frame(0, 0, 1, b"\0\0\0\1\0" + b"only the beginning"))
        received = b""
        # The status stands in a HEADERS frame, or the call is reset.
        while not any(frame_of(received, kind) for kind in (1, 3)):
            piece = connection.recv(65536)
            assert piece, "closed without a word"
            received += piece


def frame_of(received: bytes, kind: int) -> bool:
    """Whether a frame of this kind came on stream 1."""
    while len(received) >= 9:
        length = int.from_bytes(received[:3], "big")
        if received[3] == kind and received[5:9] == b"\0\0\0\1":
            return True
        received = received[9 + length :]
    return False


@pytest.mark.parametrize("name", CALLERS)
def test_a_client_that_paused_longer_than_the_header_timeout_is_answered(
    tight: Gateway, name: str
) -> None:
    """Its connection may be gone by then, so it has to notice."""
    address = tight.http if name.startswith("http") else tight.grpc
    caller = CALLERS[name](address)
    x = np.ones((1, 1), np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(caller.infer("times", {"x": x})["y"], x * 2)
        caller.pause(0.7)
    caller.close()


def test_hundreds_of_idle_connections_keep_nobody_out(tight: Gateway) -> None:
    idle = [wire.connect(tight.http) for _ in range(300)]
    assert wire.infer(tight.http, "identity_fp32", ROW).status == 200
    for connection in idle:
        connection.close()


def test_a_model_that_hangs_is_given_up_and_the_others_answer(start_gateway: Any) -> None:
    limited = start_gateway('[engine]\nrun_timeout = "1s"\ncpu_threads = 1\n', "slow", "times")
    for_ever = np.array([[2**62]], np.int64)
    with tritonclient.grpc.InferenceServerClient(limited.grpc) as client:
        status, text = refusal(lambda: client.infer("slow", grpc_inputs({"loops": for_ever})))
        assert status == FAILED[1] and "1s" in text, (status, text, limited.log_text())
        x = np.ones((1, 1), np.float32)
        answer = client.infer("times", grpc_inputs({"x": x})).as_numpy("y")
        np.testing.assert_array_equal(answer, x * 2)
        assert client.is_server_live()


async def caught(call: asyncio.Future[Any]) -> BaseException | None:
    """How a call ended."""
    try:
        await call
    except BaseException as error:
        return error
    return None


def test_a_full_queue_is_unavailable_and_says_when_to_come_back(start_gateway: Any) -> None:
    limits = "[limits]\nqueue_rows = 2\n[engine]\ncpu_threads = 1\n"
    small = start_gateway(limits, "slow")
    slow = {"loops": np.array([[40_000_000]], np.int64)}

    async def run() -> list[Any]:
        async with tritonclient.grpc.aio.InferenceServerClient(small.grpc) as client:
            first = asyncio.ensure_future(client.infer("slow", grpc_inputs(slow)))
            await asyncio.to_thread(wait_until, lambda: running(small, "slow") == 1)
            more = [
                asyncio.ensure_future(client.infer("slow", grpc_inputs(slow))) for _ in range(6)
            ]
            full = lambda: first.done() or waiting(small, "slow") == 2
            await asyncio.to_thread(wait_until, full)
            assert not first.done(), (first.exception(), small.log_text())
            body = {"inputs": [wire.tensor("INT64", [1, 1], [1], "loops")]}
            over_http = await asyncio.to_thread(wire.infer, small.http, "slow", body)
            assert over_http.status == 503 and int(over_http.headers["retry-after"]) >= 1
            assert "queue" in over_http.error()
            # Two wait, so four are refused; none of the two runs before the first has ended.
            ends = asyncio.as_completed([caught(call) for call in more])
            refused = [await end for end in itertools.islice(ends, 4)]
            assert not first.done(), small.log_text()
            for call in more:
                call.cancel()
            await first
            return refused

    refused = asyncio.run(run())
    assert [error.status() for error in refused] == ["StatusCode.UNAVAILABLE"] * 4
