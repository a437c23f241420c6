"""tritonclient's four clients, connected to the shared gateway."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc
import tritonclient.http

sys.path.insert(0, str(Path(__file__).parent))

import calls
import harness
import load
from routed import Rig


@pytest.fixture(scope="session", params=calls.CALLERS)
def caller(request: pytest.FixtureRequest, gateway: harness.Gateway) -> Iterator[calls.Caller]:
    """Each of the four clients in turn."""
    address = gateway.http if request.param.startswith("http") else gateway.grpc
    made = calls.CALLERS[request.param](address)
    yield made
    made.close()


@pytest.fixture(scope="session", params=["http", "http.aio"])
def http_caller(request: pytest.FixtureRequest, gateway: harness.Gateway) -> Iterator[calls.Caller]:
    """The two HTTP clients in turn, for what gRPC does not have."""
    made = calls.CALLERS[request.param](gateway.http)
    yield made
    made.close()


@pytest.fixture(scope="session")
def http_client(gateway: harness.Gateway) -> Iterator[Any]:
    """tritonclient.http."""
    with tritonclient.http.InferenceServerClient(gateway.http) as client:
        yield client


@pytest.fixture(scope="session")
def grpc_client(gateway: harness.Gateway) -> Iterator[Any]:
    """tritonclient.grpc."""
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
        yield client


@pytest.fixture(scope="session", params=["http", "grpc"])
def client(request: pytest.FixtureRequest) -> Any:
    """Both blocking clients in turn; `client.protocol` says which."""
    made = request.getfixturevalue(f"{request.param}_client")
    made.protocol = request.param
    return made


@pytest.fixture(scope="session")
def channel(gateway: harness.Gateway) -> Iterator[grpc.Channel]:
    """A bare gRPC channel."""
    with grpc.insecure_channel(gateway.grpc) as made:
        yield made


@pytest.fixture
def start_on(tmp_path: Path) -> Iterator[load.StartOn]:
    """Starts a gateway with identity_fp32 in `tmp_path/repository`; options as `harness.start`."""
    running: list[harness.Gateway] = []

    def begin(settings: str = "", **options: Any) -> harness.Gateway:
        repository = tmp_path / "repository"
        harness.write_identity(repository, "FP32")
        running.append(harness.start(tmp_path, repository, settings, **options))
        return running[-1]

    yield begin
    for gateway in running:
        gateway.stop()


@pytest.fixture
def start_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Starts a gateway with routes; options as those of `Rig`."""
    rigs: list[Rig] = []

    def begin(*arguments: Any, **options: Any) -> Rig:
        rigs.append(Rig(tmp_path, *arguments, **options))
        return rigs[-1]

    yield begin
    for rig in rigs:
        rig.gateway.stop()


@pytest.fixture
def rig(start_rig: Callable[..., Rig]) -> Rig:
    """A gateway with a stable arm and a canary."""
    return start_rig()
