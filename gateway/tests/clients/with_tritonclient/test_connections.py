"""Connections: how many there may be, how long they may live, and heads that no honest client sends."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import wire
from calls import grpc_inputs
from harness import Gateway, metric, wait_until

ROW = {"inputs": [wire.tensor("FP32", [1, 3], [1.0, 2.0, 3.0])]}
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + wire.frame(4, 0, 0)


@pytest.fixture(scope="module")
def gateway(start_gateway: Any) -> Gateway:
    return start_gateway('[limits]\nmax_head = "16KiB"\nbody_timeout = "2s"\n')


@pytest.fixture
def still_answers(gateway: Gateway) -> Iterator[None]:
    """Whatever a test sent, the next caller gets its answer."""
    yield
    assert wire.infer(gateway.http, "identity_fp32", ROW).status == 200


def closed_at_once(address: str) -> bool:
    """Whether a new connection is closed before it has said anything."""
    with wire.connect(address) as connection:
        connection.settimeout(1)
        try:
            return connection.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


# How many


def test_connections_beyond_the_limit_are_closed_at_once(start_gateway: Any) -> None:
    small: Gateway = start_gateway("[limits]\nmax_connections = 3\n")
    with contextlib.ExitStack() as stack:
        for address in (small.http, small.http, small.grpc):
            stack.enter_context(wire.connect(address))
        open_now = lambda: sum(
            metric(small, "penstock_connections", protocol=door) for door in ("http", "grpc")
        )
        wait_until(lambda: open_now() == 3)
        assert closed_at_once(small.http) and closed_at_once(small.grpc)
        # Operators still get in.
        assert wire.request(small.admin, "GET", "/v1/status").status == 200
        assert metric(small, "penstock_connections_refused_total", limit="connections") == 2
    wait_until(lambda: not closed_at_once(small.http))
    assert wire.infer(small.http, "identity_fp32", ROW).status == 200


def test_one_address_cannot_take_all_connections(start_gateway: Any) -> None:
    small: Gateway = start_gateway("[limits]\nmax_connections_per_address = 2\n")
    host, port = small.http.rsplit(":", 1)
    other = lambda: socket.create_connection((host, int(port)), 30, ("127.0.0.9", 0))
    open_now = lambda door: metric(small, "penstock_connections", protocol=door)
    with wire.connect(small.http), wire.connect(small.grpc):
        wait_until(lambda: open_now("http") == open_now("grpc") == 1)
        assert closed_at_once(small.http) and closed_at_once(small.grpc)
        with other() as connection:
            connection.sendall(LIVE)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    wait_until(lambda: not closed_at_once(small.http))
    assert metric(small, "penstock_connections_refused_total", limit="address") >= 1


def test_thousands_of_idle_connections_keep_nobody_out(start_gateway: Any) -> None:
    """More than the 1024 files that a process may usually open."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 1500
    if hard != resource.RLIM_INFINITY and hard < wanted + 500:
        pytest.skip("this machine does not allow so many open files")
    big: Gateway = start_gateway()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 500), hard))
    try:
        idle = [wire.connect(big.http) for _ in range(wanted)]
        wait_until(lambda: metric(big, "penstock_connections", protocol="http") >= wanted)
        assert wire.infer(big.http, "identity_fp32", ROW).status == 200
        for connection in idle:
            connection.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# How long


def test_a_grpc_connection_without_calls_is_told_to_go(start_gateway: Any) -> None:
    small: Gateway = start_gateway('[limits]\nidle_timeout = "1s"\n')
    with wire.connect(small.grpc) as connection:
        connection.sendall(PREFACE)
        connection.settimeout(10)
        begun, received = time.monotonic(), b""
        # It answers everything that it is asked, and calls nothing.
        while piece := connection.recv(65536):
            received += piece
            while frame := wire.next_frame(received):
                kind, flags, payload, received = frame
                if kind == 6 and not flags & 1:
                    connection.sendall(wire.frame(6, 1, 0, payload))
    assert 0.9 < time.monotonic() - begun < 5


def test_a_watcher_keeps_its_connection(start_gateway: Any) -> None:
    small: Gateway = start_gateway('[limits]\nidle_timeout = "1s"\n')
    with grpc.insecure_channel(small.grpc) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        time.sleep(3)
        assert wire.request(small.admin, "POST", "/v1/drain", b'{"on":true}').status == 200
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_connections_of_age_end_without_a_failed_call(start_gateway: Any) -> None:
    small: Gateway = start_gateway('[limits]\nmax_connection_age = "1s"\n')
    x = np.ones((1, 3), np.float32)
    with (
        tritonclient.grpc.InferenceServerClient(small.grpc) as client,
        wire.connect(small.http) as connection,
    ):
        begun = time.monotonic()
        while time.monotonic() - begun < 3:
            answer = client.infer("identity_fp32", grpc_inputs({"x": x}))
            np.testing.assert_array_equal(answer.as_numpy("y"), x)
        connection.settimeout(5)
        assert wire.read_until_closed(connection) == b""


# Heads


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100_000,
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["one long header", "many headers", "a flood without an end", "a long path"],
)
@pytest.mark.usefixtures("still_answers")
def test_heads_beyond_the_limit_are_431_and_end_the_connection(
    gateway: Gateway, head: bytes
) -> None:
    with wire.connect(gateway.http) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(head)
        received = wire.read_until_closed(connection)
    # What was not read yet may reset the connection before the answer is.
    assert received.startswith(b"HTTP/1.1 431 ") or (not received and len(head) > 100_000)


@pytest.mark.usefixtures("still_answers")
def test_a_grpc_call_with_a_head_beyond_the_limit_is_refused(gateway: Gateway) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError):
            large = [(f"x-{i}", "y" * 1000) for i in range(30)]
            stub.Check(health_pb2.HealthCheckRequest(), metadata=large, timeout=10)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1


CALL = b"".join(
    wire.literal(name, value)
    for name, value in {
        b":method": b"POST", b":scheme": b"http", b":authority": b"a",
        b":path": b"/inference.GRPCInferenceService/ModelInfer", b"te": b"trailers",
        b"content-type": b"application/grpc",
    }.items()
)  # fmt: skip


@pytest.mark.usefixtures("still_answers")
def test_calls_that_are_given_up_in_a_flood_end_the_connection(gateway: Gateway) -> None:
    """Rapid reset: each call costs its sender nothing."""
    flood = b"".join(
        wire.frame(1, 4, stream, CALL) + wire.frame(3, 0, stream, b"\0\0\0\x08")
        for stream in range(1, 20_001, 2)
    )
    assert told_to_go(gateway, flood)


@pytest.mark.usefixtures("still_answers")
def test_a_head_in_endless_pieces_ends_the_connection(gateway: Gateway) -> None:
    pieces = wire.frame(1, 0, 1, CALL) + wire.frame(9, 0, 1, b"") * 100_000
    assert told_to_go(gateway, pieces)


def told_to_go(gateway: Gateway, flood: bytes) -> bool:
    """Whether the connection that sends this is ended."""
    with wire.connect(gateway.grpc) as connection:
        connection.settimeout(10)
        try:
            connection.sendall(PREFACE + flood)
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
    return True


# Smuggling: two readings of where a request ends

INDEX = b"POST /v2/repository/index HTTP/1.1\r\nHost: a\r\n"
SMUGGLED = b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\n\r\n"
REFUSED = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a list of lengths": b"Content-Length: 2, 2\r\n\r\n{}",
    "a sign": b"Content-Length: +2\r\n\r\n{}",
    "a negative length": b"Content-Length: -2\r\n\r\n{}",
    "a space within": b"Content-Length: 2 2\r\n\r\n{}",
    "hexadecimal": b"Content-Length: 0x2\r\n\r\n{}",
    "no digits": b"Content-Length: \r\n\r\n{}",
    "a length beyond 64 bits": b"Content-Length: 18446744073709551618\r\n\r\n{}",
    "a space before the colon": b"Content-Length : 2\r\n\r\n{}",
    "a folded header": b"X: y\r\n Content-Length: 2\r\n\r\n{}",
    "a line without a colon": b"Content-Length 2\r\n\r\n{}",
    "a bare CR": b"X: y\rContent-Length: 2\r\n\r\n{}",
    "a NUL": b"X: y\0z\r\nContent-Length: 2\r\n\r\n{}",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "identity": b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}",
    "chunked not last": b"Transfer-Encoding: chunked, identity\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked taken back": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a control character": b"Transfer-Encoding: \x0bchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a signed chunk": b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
    "a chunk in words": b"Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than said": b"Transfer-Encoding: chunked\r\n\r\n2\r\n{} \r\n0\r\n\r\n",
    "a chunk's line with a bare LF": b"Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("shape", REFUSED.values(), ids=REFUSED)
@pytest.mark.usefixtures("still_answers")
def test_a_request_of_two_readings_is_400_and_nothing_after_it_is_read(
    gateway: Gateway, shape: bytes
) -> None:
    with wire.connect(gateway.http) as connection:
        connection.sendall(INDEX + shape + SMUGGLED)
        received = wire.read_until_closed(connection)
    assert received.startswith(b"HTTP/1.1 400 "), received
    assert received.count(b"HTTP/1.1 ") == 1, received


@pytest.mark.parametrize(
    "shape",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
@pytest.mark.usefixtures("still_answers")
def test_chunks_win_over_a_length_and_the_connection_ends(gateway: Gateway, shape: bytes) -> None:
    """RFC 9112, 6.3: a server may read it as chunks, and must close the connection then."""
    with wire.connect(gateway.http) as connection:
        connection.sendall(INDEX + shape + SMUGGLED)
        received = wire.read_until_closed(connection)
    assert received.startswith(b"HTTP/1.1 200 "), received
    assert received.count(b"HTTP/1.1 ") == 1, received


@pytest.mark.usefixtures("still_answers")
def test_a_request_in_old_http_has_no_chunks(gateway: Gateway) -> None:
    head = INDEX.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n"
    with wire.connect(gateway.http) as connection:
        connection.sendall(head + b"2\r\n{}\r\n0\r\n\r\n" + SMUGGLED)
        received = wire.read_until_closed(connection)
    assert received.split()[1] == b"400" and received.count(b"HTTP/1.") == 1, received


@pytest.mark.usefixtures("still_answers")
def test_readings_that_everybody_shares_are_taken(gateway: Gateway) -> None:
    """A length said twice alike, and lines that end with a bare LF (RFC 9112, 2.2)."""
    same = INDEX + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"
    bare = (INDEX + b"Content-Length: 2\r\nConnection: close\r\n\r\n").replace(b"\r\n", b"\n")
    with wire.connect(gateway.http) as connection:
        connection.sendall(same + bare + b"{}")
        received = wire.read_until_closed(connection)
    assert received.count(b"HTTP/1.1 200 ") == 2, received
