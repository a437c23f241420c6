"""What stands in for a broken arm, what answers say of it, and against whom it counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tritonclient.grpc

from calls import UNAVAILABLE, GrpcCaller, HttpCaller, grpc_inputs
from harness import Gateway, metric
from routed import MODEL, X, Rig, parameters

StartRig = Callable[..., Rig]

# The operator's word is not undone by a success or the end of a pause.
FOR_LONG = '[breaker]\nopen_time = "10min"\nmax_open_time = "1h"\n'


def route(version: int, fallback: str, more: str = "") -> str:
    """A route that sends everybody to one version; another arm has no callers of its own."""
    return f"""
[[route]]
name = "{MODEL}"
fallback = "{fallback}"
  [[route.arm]]
  name = "stable"
  version = "1"
  share = "0%"
  [[route.arm]]
  name = "canary"
  version = "{version}"
  share = "100%"
{more}"""


STATIC = """
  [[route.static]]
  output = "y"
  dtype = "FP32"
  shape = [2]
  data = [0.25, 0.75]
"""


def trip(rig: Rig, version: int, action: str = "trip") -> None:
    """Opens or closes the circuit breaker of a version by hand."""
    answer = rig.ask("POST", f"/v1/breakers/{MODEL}/{version}/{action}", {})
    assert answer.status == 200, answer


def requests(gateway: Gateway, arm: str, outcome: str = "answered") -> float:
    """Calls of an arm."""
    labels = {"route": MODEL, "arm": arm, "outcome": outcome}
    return metric(gateway, "penstock_route_requests_total", **labels)


def fallbacks(gateway: Gateway, arm: str, reason: str) -> float:
    """Calls that something else had to answer."""
    labels = {"route": MODEL, "arm": arm, "reason": reason}
    return metric(gateway, "penstock_route_fallbacks_total", **labels)


def answered_by_stable_instead(rig: Rig) -> None:
    """Both protocols say who answered, and that it stood in."""
    answer = rig.infer()
    said = parameters(answer)
    assert (said["arm"], said["fallback"]) == ("stable", "true")
    assert answer.headers["penstock-arm"] == "stable"
    assert answer.json()["model_version"] == "1"
    with tritonclient.grpc.InferenceServerClient(rig.gateway.grpc) as client:
        message = client.infer(MODEL, grpc_inputs({"x": X})).get_response()
    assert message.parameters["arm"].string_param == "stable"
    assert message.parameters["fallback"].string_param == "true"
    assert message.model_version == "1"


def test_a_fallback_answers_while_the_breaker_of_the_arm_is_open(start_rig: StartRig) -> None:
    rig = start_rig(route(2, "stable"), FOR_LONG)
    assert "fallback" not in parameters(rig.infer())
    trip(rig, 2)
    answered_by_stable_instead(rig)
    assert requests(rig.gateway, "canary") == 3 and requests(rig.gateway, "stable") == 0
    assert fallbacks(rig.gateway, "canary", "circuit_open") == 2
    assert (rig.arm("canary")["state"], rig.arm("stable")["state"]) == ("open", "ready")
    trip(rig, 2, "reset")
    assert parameters(rig.infer())["arm"] == "canary"


def test_a_fallback_answers_while_the_version_of_the_arm_is_missing(start_rig: StartRig) -> None:
    rig = start_rig(route(9, "stable"))
    answered_by_stable_instead(rig)
    assert requests(rig.gateway, "canary") == 2 and requests(rig.gateway, "stable") == 0
    assert fallbacks(rig.gateway, "canary", "not_ready") == 2
    assert rig.arm("canary")["state"] == "not_ready"


@pytest.mark.parametrize("rows", [1, 3])
def test_a_declared_answer_is_given_for_every_row(start_rig: StartRig, rows: int) -> None:
    rig = start_rig(route(2, "static", STATIC), FOR_LONG)
    trip(rig, 2)
    inputs = {"x": np.repeat(X, rows, axis=0)}
    for caller in (HttpCaller(rig.gateway.http), GrpcCaller(rig.gateway.grpc)):
        answer = caller.infer(MODEL, inputs)
        np.testing.assert_array_equal(answer["y"], np.array([[0.25, 0.75]] * rows, np.float32))
        assert answer.version == "static"
        caller.close()
    assert parameters(rig.infer())["fallback"] == "true"
    assert fallbacks(rig.gateway, "canary", "circuit_open") == 3


def test_without_a_fallback_the_call_is_refused(start_rig: StartRig) -> None:
    rig = start_rig(route(2, "refuse"), FOR_LONG)
    trip(rig, 2)
    for caller in (HttpCaller(rig.gateway.http), GrpcCaller(rig.gateway.grpc)):
        caller.refused(UNAVAILABLE, MODEL, {"x": X})
        caller.close()
    assert requests(rig.gateway, "canary", "circuit_open") == 2


def test_a_fallback_that_is_broken_too_refuses(start_rig: StartRig) -> None:
    rig = start_rig(route(2, "stable"), FOR_LONG)
    trip(rig, 1)
    trip(rig, 2)
    assert rig.infer().status == 503
    assert requests(rig.gateway, "canary", "circuit_open") == 1
