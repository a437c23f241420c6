"""From start to end: what supervisors hear, drains, and a second signal."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import wire
from harness import Gateway, wait_until

ROW = {"inputs": [wire.tensor("FP32", [1, 3], [1.0, 2.0, 3.0])]}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def drain(gateway: Gateway, on: bool) -> wire.Response:
    """What the operator wants."""
    return wire.request(gateway.admin, "POST", "/v1/drain", json.dumps({"on": on}).encode())


def ready(gateway: Gateway) -> int:
    """The status of the readiness probe."""
    return wire.request(gateway.http, "GET", "/v2/health/ready").status


def test_a_drained_gateway_is_not_ready_and_answers_on(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway()
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watched = stub.Watch(health_pb2.HealthCheckRequest())
        model = stub.Watch(health_pb2.HealthCheckRequest(service="identity_fp32"))
        assert next(watched).status == next(model).status == SERVING
        assert drain(gateway, on=True).json() == {"stage": "open", "drain": True}
        assert next(watched).status == NOT_SERVING and ready(gateway) == 503
        assert wire.infer(gateway.http, "identity_fp32", ROW).status == 200
        # Models have a readiness of their own: a call to this one would be taken.
        asked = stub.Check(health_pb2.HealthCheckRequest(service="identity_fp32"))
        assert asked.status == SERVING
        assert drain(gateway, on=False).json() == {"stage": "open", "drain": False}
        assert next(watched).status == SERVING and ready(gateway) == 200


def test_a_drain_that_is_taken_back_does_not_open_a_gateway_that_stops(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway('[server]\nstop_delay = "3s"\n')
    assert drain(gateway, on=True).status == 200
    gateway.begin_stop()
    state = lambda: wire.request(gateway.admin, "GET", "/v1/status").json()
    wait_until(lambda: state()["stage"] == "stopping")
    refused = drain(gateway, on=False)
    assert refused.status == 409 and "stopping" in refused.error()
    assert state()["stage"] == "stopping" and not state()["ready"] and ready(gateway) == 503
    gateway.stop()


def test_watchers_hear_of_a_stop(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway('[server]\nstop_delay = "1s"\n')
    with grpc.insecure_channel(gateway.grpc) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == SERVING
        gateway.begin_stop()
        assert next(watched).status == NOT_SERVING
    gateway.stop()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_while_a_call_hangs(
    start_gateway: Any, second: signal.Signals
) -> None:
    gateway: Gateway = start_gateway('[limits]\nbody_timeout = "60s"\n')
    with wire.connect(gateway.http) as connection:
        head = b"POST /v2/repository/index HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{"
        connection.sendall(head)
        assert wire.infer(gateway.http, "identity_fp32", ROW).status == 200
        gateway.begin_stop()
        wait_until(lambda: refuses(gateway.http))
        assert gateway.process.poll() is None, "the call holds it up"
        begun = time.monotonic()
        gateway.process.send_signal(second)
        assert gateway.process.wait(10) == 1
        assert time.monotonic() - begun < 2
    gateway.ended = True
    assert f"a second signal, {second.name}" in gateway.log_text()


def refuses(address: str) -> bool:
    """Whether nobody listens any more."""
    try:
        wire.connect(address).close()
    except OSError:
        return True
    return False


# systemd


class Supervisor:
    """Where systemd would listen."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))

    def hear(self, seconds: float = 10) -> str:
        """The next message."""
        self.socket.settimeout(seconds)
        return self.socket.recv(4096).decode()

    def hears_nothing(self, seconds: float) -> bool:
        """Whether there is no message for so long."""
        try:
            self.hear(seconds)
        except TimeoutError:
            return True
        return False


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path)
    yield made
    made.socket.close()


def test_systemd_hears_of_start_reload_and_stop(start_gateway: Any, supervisor: Supervisor) -> None:
    gateway: Gateway = start_gateway(environment={"NOTIFY_SOCKET": str(supervisor.path)})
    assert supervisor.hear() == "READY=1\n"
    assert supervisor.hears_nothing(0.2)
    gateway.process.send_signal(signal.SIGHUP)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+\n", supervisor.hear())
    assert supervisor.hear() == "READY=1\n"
    gateway.begin_stop()
    assert supervisor.hear() == "STOPPING=1\n"
    gateway.stop()


def test_systemd_gets_signs_of_life(start_gateway: Any, supervisor: Supervisor) -> None:
    environment = {"NOTIFY_SOCKET": str(supervisor.path), "WATCHDOG_USEC": "400000"}
    start_gateway(environment=environment)
    assert supervisor.hear() == "READY=1\n"
    begun = time.monotonic()
    assert [supervisor.hear(2) for _ in range(6)] == ["WATCHDOG=1\n"] * 6
    assert 0.8 < time.monotonic() - begun < 4


def test_a_gateway_that_cannot_reach_systemd_serves(start_gateway: Any, tmp_path: Path) -> None:
    gateway: Gateway = start_gateway(environment={"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert ready(gateway) == 200
    assert "systemd" in gateway.log_text()
