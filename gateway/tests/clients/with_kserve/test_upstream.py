"""A route whose only arm is another gateway, called by kserve's clients over both protocols."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness import Gateway, metric, wait_until, write_identity
from test_kserve import DTYPES, infer, request

StartGateway = Callable[..., Gateway]
PROTOCOLS = ["http", "grpc"]


def front(start_gateway: StartGateway, protocol: str, *behind: Gateway) -> Gateway:
    """A gateway without models whose routes lead to those behind it, and is ready to."""
    endpoints = [one.http if protocol == "http" else one.grpc for one in behind]
    routes = "".join(
        f'[[route]]\nname = "identity_{dtype.lower()}"\n'
        f'[[route.arm]]\nname = "far"\nupstream = "fleet"\nmodel = "identity_{dtype.lower()}"\n'
        for dtype in DTYPES
    )
    gateway = start_gateway(
        f'[[upstream]]\nname = "fleet"\nprotocol = "{protocol}"\nendpoints = {endpoints}\n'
        f'[upstream.health]\nevery = "100ms"\n{routes}',
        identities=False,
    )
    ready = {"upstream": "fleet", "state": "ready"}
    wait_until(
        lambda: metric(gateway, "penstock_upstream_endpoints", **ready) == len(behind)
        and answers(gateway)
    )
    return gateway


def answers(gateway: Gateway) -> bool:
    """Whether the far models are known."""
    try:
        infer(gateway, "rest", request("identity_fp32", {"x": DTYPES["FP32"]}, binary=False))
    except Exception:  # noqa: BLE001 - whatever says that it is not ready yet
        return False
    return True


def with_all_datatypes(repository: Path) -> None:
    """Models behind."""
    for dtype in DTYPES:
        write_identity(repository, dtype)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_far_gateway_answers_in_every_datatype(
    start_gateway: StartGateway, protocol: str
) -> None:
    behind = start_gateway("", identities=False, prepare=with_all_datatypes)
    gateway = front(start_gateway, protocol, behind)
    for dtype, array in DTYPES.items():
        for door in ("rest", "grpc"):
            asked = request(f"identity_{dtype.lower()}", {"x": array}, binary=True)
            output = infer(gateway, door, asked).outputs[0]
            np.testing.assert_array_equal(output.as_numpy(), array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_call_fails_while_one_of_two_far_gateways_stops(
    start_gateway: StartGateway, protocol: str
) -> None:
    pair = [start_gateway("", identities=False, prepare=with_all_datatypes) for _ in range(2)]
    gateway = front(start_gateway, protocol, *pair)
    asked = request("identity_fp32", {"x": DTYPES["FP32"]}, binary=True)
    for _ in range(20):
        infer(gateway, "rest", asked)
    pair[0].stop()
    for _ in range(50):
        output = infer(gateway, "rest", asked).outputs[0]
        np.testing.assert_array_equal(output.as_numpy(), DTYPES["FP32"])
    assert metric(gateway, "penstock_upstream_requests_total", upstream="fleet") >= 70
