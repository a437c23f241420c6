"""More than the gateway takes: bounds on what is in flight, and what operators see of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import wire
from busy import in_threads
from harness import Gateway, metric, wait_until, waiting, write_identity

ROW = {"inputs": [wire.tensor("FP32", [1, 1], [1.0])]}
LIMITS = '[limits]\nmax_in_flight = 2\nmax_in_flight_bytes = "64KiB"\n'


def patient(repository: Path) -> None:
    """A model that holds calls back until a batch of eight rows is full."""
    write_identity(repository, "FP32", name="patient", more='[batching]\nmax_delay = "60s"\n')


def hold(gateway: Gateway) -> Callable[[], None]:
    """Has one call wait in the gateway; what it gives lets it go and wants its answer."""
    threads, ended = in_threads([lambda: wire.infer(gateway.http, "patient", ROW)])
    wait_until(lambda: waiting(gateway, "patient") == 1)

    def release() -> None:
        rest = {"inputs": [wire.tensor("FP32", [7, 1], [2.0] * 7)]}
        assert wire.infer(gateway.http, "patient", rest).status == 200
        for thread in threads:
            thread.join()
        assert [answer.status for answer in ended] == [200]
        wait_until(lambda: status(gateway)["calls"] == 0)

    return release


@pytest.fixture(scope="module")
def narrow(start_gateway: Any) -> Gateway:
    """A gateway with room for two calls."""
    return start_gateway(LIMITS, prepare=patient)


def shed(gateway: Gateway, reason: str) -> float:
    """Calls refused for this reason."""
    return metric(gateway, "penstock_calls_shed_total", reason=reason)


def status(gateway: Gateway) -> Any:
    """What the admin port says of the overload."""
    answer = wire.request(gateway.admin, "GET", "/v1/status")
    return answer.json()["overload"]


def test_calls_beyond_the_bound_are_refused_before_their_body_is_read(narrow: Gateway) -> None:
    release = hold(narrow)
    with wire.connect(narrow.http) as sender:
        # The second one never sends its body.
        head = "POST /v2/models/patient/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
        sender.sendall(head.encode())
        wait_until(lambda: status(narrow)["calls"] == 2)
        assert metric(narrow, "penstock_in_flight_calls") == 2
        with wire.connect(narrow.http) as third:
            third.sendall(head.encode())
            third.settimeout(wire.TIMEOUT)
            received = third.recv(65536)
        assert received.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in received
        assert b"too many calls are in flight" in received
    assert shed(narrow, "calls") == 1
    wait_until(lambda: status(narrow)["calls"] == 1)
    release()


def test_requests_that_are_too_large_together_are_refused_by_their_length(narrow: Gateway) -> None:
    release = hold(narrow)
    large = json.dumps(ROW).encode() + b" " * 65536
    refused = wire.infer(narrow.http, "identity_fp32", large)
    assert refused.status == 503 and "too large" in refused.error()
    pieces = (large[i : i + 4096] for i in range(0, len(large), 4096))
    chunked = wire.request(narrow.http, "POST", "/v2/models/identity_fp32/infer", pieces)
    assert chunked.status == 503 and "too large" in chunked.error()
    assert shed(narrow, "bytes") == 2
    release()
    # Alone it may have any size up to the limit of one request.
    assert wire.infer(narrow.http, "identity_fp32", large).status == 200


def test_operators_see_the_memory_that_is_left(narrow: Gateway) -> None:
    wait_until(lambda: status(narrow)["memory"]["limit_bytes"] > 0)
    memory = status(narrow)["memory"]
    assert 0 < memory["used_bytes"] <= memory["limit_bytes"]
    assert memory["pressure"] in ("none", "soft", "hard")
