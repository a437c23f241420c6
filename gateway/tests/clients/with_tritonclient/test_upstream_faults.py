"""An endpoint of an upstream dies, hangs or talks nonsense under load: no caller notices, and the
calls that this costs are few."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import far
import harness
from calls import CALLERS
from far import MODEL
from harness import Gateway, metric, wait_until
from load import Book, under_load, wait_for_answers

StartGateway = Callable[..., Gateway]
PROTOCOLS = ["http", "grpc"]
# Attempts for each call, at most.
AMPLIFICATION = 1.2


def models(folder: Path) -> None:
    """Of the shape that all endpoints declare."""
    harness.write_identity(folder, "FP32")
    manifest = folder / MODEL / "model.toml"
    manifest.write_text(manifest.read_text().replace("[-1, -1]", "[-1, 2]"))


@pytest.fixture
def behind(start_gateway: StartGateway) -> Iterator[Callable[[], Gateway]]:
    """Starts gateways to send calls to; a test may end them as it likes."""
    started: list[Gateway] = []

    def start() -> Gateway:
        started.append(start_gateway(identities=False, prepare=models))
        return started[-1]

    yield start
    for gateway in started:
        # Those that a test ended or halted.
        gateway.ended = True
    far.kill_all([gateway.process for gateway in started])


def ready(gateway: Gateway) -> float:
    """Endpoints that get calls."""
    return metric(gateway, "penstock_upstream_endpoints", upstream="fleet", state="ready")


def serves(gateway: Gateway, endpoints: int) -> bool:
    """Whether so many endpoints have said that they serve the model."""
    return gateway.log_text().count("the endpoint serves the model") >= endpoints


def front(start_gateway: StartGateway, protocol: str, endpoints: list[str]) -> Gateway:
    """A gateway whose route leads to these endpoints alone, and that knows them all."""
    gateway = start_gateway(
        f'[[upstream]]\nname = "fleet"\nprotocol = "{protocol}"\nendpoints = {endpoints}\n'
        f'timeout = "500ms"\n[upstream.health]\nevery = "100ms"\ntimeout = "250ms"\n'
        f'[upstream.ejection]\ntime = "1s"\nmax_time = "2s"\n'
        f'[[route]]\nname = "{MODEL}"\n[[route.arm]]\nname = "far"\nupstream = "fleet"\n'
        f'model = "{MODEL}"\n',
        identities=False,
    )
    wait_until(lambda: ready(gateway) == len(endpoints) and serves(gateway, len(endpoints)), 60)
    return gateway


@contextmanager
def nobody_notices(gateway: Gateway) -> Iterator[Book]:
    """Load before, while and after the body; every call is answered, with few more attempts."""
    with under_load(gateway) as book:
        wait_for_answers(book, 200)
        yield book
        wait_for_answers(book, 200)
    assert not book.failed, book.failed[:3]
    calls = metric(gateway, "penstock_upstream_requests_total", upstream="fleet")
    attempts = metric(gateway, "penstock_upstream_attempt_seconds_count", upstream="fleet")
    retries = metric(gateway, "penstock_upstream_retries_total", upstream="fleet", result="sent")
    assert calls == book.answered
    assert attempts == calls + retries
    assert 0 < retries, "the fault met no call"
    assert attempts <= AMPLIFICATION * calls, f"{attempts} attempts for {calls} calls"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_endpoint_is_killed(
    start_gateway: StartGateway, behind: Callable[[], Gateway], protocol: str
) -> None:
    fleet = [behind() for _ in range(3)]
    gateway = front(start_gateway, protocol, [getattr(one, protocol) for one in fleet])
    with nobody_notices(gateway):
        fleet[0].process.kill()
        wait_until(lambda: ready(gateway) == 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_endpoint_hangs_and_goes_on(
    start_gateway: StartGateway, behind: Callable[[], Gateway], protocol: str
) -> None:
    fleet = [behind() for _ in range(3)]
    gateway = front(start_gateway, protocol, [getattr(one, protocol) for one in fleet])
    with nobody_notices(gateway) as book:
        fleet[0].process.send_signal(signal.SIGSTOP)
        wait_until(lambda: ready(gateway) == 2)
        wait_for_answers(book, 200)
        fleet[0].process.send_signal(signal.SIGCONT)
        wait_until(lambda: ready(gateway) == 3)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_endpoint_answers_garbage(start_gateway: StartGateway, protocol: str) -> None:
    """Its health checks say that it is well; how it answers takes its calls away."""
    fleet = [far.FAKES[protocol]() for _ in range(3)]
    gateway = front(start_gateway, protocol, [fake.address for fake in fleet])
    retries = "penstock_upstream_retries_total"
    try:
        with nobody_notices(gateway) as book:
            fleet[0].spoilt = True
            wait_until(lambda: metric(gateway, retries, upstream="fleet", result="sent") >= 1)
            wait_for_answers(book, 200)
    finally:
        for fake in fleet:
            fake.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[far.MLServer]]:
    """Two of MLServer."""
    if far.mlserver_program() is None:
        pytest.skip("no MLServer: `scripts/clients.sh --mlserver` fetches it")
    started = [far.MLServer(tmp_path / f"mlserver-{number}") for number in range(2)]
    try:
        wait_until(lambda: all([one.is_ready() for one in started]), seconds=90)
        yield started
    finally:
        far.kill_all([one.process for one in started])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mlserver_answers_and_one_of_two_is_killed(
    start_gateway: StartGateway, pair: list[far.MLServer], protocol: str
) -> None:
    gateway = front(start_gateway, protocol, [one.address(protocol) for one in pair])
    rows = np.array([[1.5, -2.0], [0.1, 3e7], [-0.0, 1e-30]], np.float32)
    for name, make in CALLERS.items():
        caller = make(gateway.http if name.startswith("http") else gateway.grpc)
        answer = caller.infer(MODEL, {"x": rows})
        np.testing.assert_array_equal(answer["y"], rows)
        assert answer.version == "7"
        caller.close()
    already = metric(gateway, "penstock_upstream_requests_total", upstream="fleet")
    assert already == len(CALLERS)
    with under_load(gateway) as book:
        wait_for_answers(book, 100)
        pair[0].kill()
        wait_until(lambda: ready(gateway) == 1)
        wait_for_answers(book, 100)
    assert not book.failed, book.failed[:3]
    calls = metric(gateway, "penstock_upstream_requests_total", upstream="fleet")
    attempts = metric(gateway, "penstock_upstream_attempt_seconds_count", upstream="fleet")
    assert calls == already + book.answered
    assert attempts <= AMPLIFICATION * calls, f"{attempts} attempts for {calls} calls"
