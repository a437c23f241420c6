"""Routes as the protocol shows them: metadata, readiness, repeats, streams, keys in parameters."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import harness
import wire
from calls import CALLERS, NOT_FOUND, UNAVAILABLE, grpc_inputs
from harness import Gateway, wait_until
from routed import BODY, CANARY, MODEL, X, Rig, parameters

StartRig = Callable[..., Rig]
StartGateway = Callable[..., Gateway]

# No model has the name of this route.
NAMED = f"""
[[route]]
name = "front"
  [[route.arm]]
  name = "only"
  model = "{MODEL}"
"""


def clients(gateway: Gateway) -> list[Any]:
    """Both blocking clients."""
    return [
        tritonclient.http.InferenceServerClient(gateway.http),
        tritonclient.grpc.InferenceServerClient(gateway.grpc),
    ]


def described(client: Any, model: str) -> tuple[str, list[tuple[str, str]], list[tuple[str, str]]]:
    """Name, inputs and outputs of a model as a client sees them."""
    if isinstance(client, tritonclient.grpc.InferenceServerClient):
        told = client.get_model_metadata(model, as_json=True)
    else:
        told = client.get_model_metadata(model)
    tensors = [[(one["name"], one["datatype"]) for one in told[k]] for k in ("inputs", "outputs")]
    return told["name"], tensors[0], tensors[1]


def is_a_model(gateway: Gateway, name: str) -> None:
    """Every client finds the route ready, described, and answering."""
    for client in clients(gateway):
        assert client.is_model_ready(name) and client.is_server_ready()
        assert described(client, name) == (name, [("x", "FP32")], [("y", "FP32")])
        client.close()
    for kind, make in CALLERS.items():
        caller = make(gateway.http if kind.startswith("http") else gateway.grpc)
        answer = caller.infer(name, {"x": X})
        np.testing.assert_array_equal(answer["y"], X)
        assert answer.model == name
        caller.close()


def test_a_route_with_a_name_of_its_own_is_called_like_a_model(start_rig: StartRig) -> None:
    rig = start_rig(NAMED)
    is_a_model(rig.gateway, "front")
    assert rig.ask("POST", f"/v1/breakers/{MODEL}/2/trip", {}).status == 200
    for client in clients(rig.gateway):
        assert not client.is_model_ready("front")
        client.close()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_route_that_leads_elsewhere_alone_is_called_like_a_model(
    start_gateway: StartGateway, protocol: str
) -> None:
    behind = start_gateway()
    endpoint = behind.http if protocol == "http" else behind.grpc
    gateway = start_gateway(
        f'[[upstream]]\nname = "fleet"\nprotocol = "{protocol}"\nendpoints = ["{endpoint}"]\n'
        f'[upstream.health]\nevery = "100ms"\ntimeout = "5s"\n'
        f'[[route]]\nname = "front"\n[[route.arm]]\nname = "far"\nupstream = "fleet"\n'
        f'model = "{MODEL}"\n',
        identities=False,
    )
    with tritonclient.http.InferenceServerClient(gateway.http) as client:
        wait_until(lambda: client.is_model_ready("front"))
    is_a_model(gateway, "front")
    behind.stop()
    with tritonclient.http.InferenceServerClient(gateway.http) as client:
        wait_until(lambda: not client.is_model_ready("front"))


def test_repeats_keep_the_name_and_arm_of_the_first_answer(rig: Rig) -> None:
    """Over both protocols, whoever would answer now."""
    key = {"idempotency_key": "a-key-of-the-test"}
    first = rig.infer(**key, x_user_id="somebody")
    said = parameters(first)
    other = {"stable": "canary", "canary": "stable"}[said["arm"]]
    rig.done("route", "set", MODEL, f"{other}=100%")
    again = rig.infer(**key, x_user_id="somebody")
    assert again.headers["penstock-replayed"] == "true" and parameters(again) == said
    for name in ("penstock-arm", "penstock-prediction-id"):
        assert again.headers[name] == first.headers[name]
    with tritonclient.grpc.InferenceServerClient(rig.gateway.grpc) as client:
        headers = {"idempotency-key": "a-key-of-the-test", "x-user-id": "somebody"}
        message = client.infer(MODEL, grpc_inputs({"x": X}), headers=headers).get_response()
    assert message.parameters["penstock_replayed"].bool_param
    assert message.parameters["prediction_id"].string_param == said["prediction_id"]
    assert message.parameters["arm"].string_param == said["arm"]
    fresh = parameters(rig.infer(x_user_id="somebody"))
    assert fresh["arm"] == other and fresh["prediction_id"] != said["prediction_id"]


def test_every_answer_of_a_stream_names_itself(rig: Rig) -> None:
    """Each message is divided for itself; without a key callers meet both arms."""
    answers: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(rig.gateway.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(100):
            client.async_stream_infer(MODEL, grpc_inputs({"x": X}), request_id=str(number))
        told = [answers.get(timeout=30) for _ in range(100)]
        client.stop_stream()
    assert all(error is None for _, error in told), told
    messages = [result.get_response() for result, _ in told]
    assert len({m.parameters["prediction_id"].string_param for m in messages}) == 100
    assert {m.parameters["arm"].string_param for m in messages} == {"stable", "canary"}
    for message in messages:
        version = {"stable": "1", "canary": "2"}[message.parameters["arm"].string_param]
        assert message.model_version == version
        assert message.parameters["route"].string_param == MODEL


def test_a_parameter_keeps_callers_with_their_arm(start_rig: StartRig) -> None:
    """The same arm over HTTP, gRPC and in a stream, where only the parameter tells who calls."""
    rig = start_rig(CANARY.replace("header:x-user-id", "parameter:user"))
    arms: dict[str, str] = {}
    for user in (f"user-{number}" for number in range(60)):
        body = BODY | {"parameters": {"user": user}}
        arms[user] = parameters(wire.infer(rig.gateway.http, MODEL, body))["arm"]
    assert set(arms.values()) == {"stable", "canary"}
    answers: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(rig.gateway.grpc) as client:
        for user, arm in arms.items():
            result = client.infer(MODEL, grpc_inputs({"x": X}), parameters={"user": user})
            assert result.get_response().parameters["arm"].string_param == arm
        client.start_stream(lambda result, error: answers.put((result, error)))
        for user in arms:
            client.async_stream_infer(
                MODEL, grpc_inputs({"x": X}), request_id=user, parameters={"user": user}
            )
        for _ in arms:
            result, error = answers.get(timeout=30)
            assert error is None
            message = result.get_response()
            assert message.parameters["arm"].string_param == arms[message.id]
        client.stop_stream()


def test_answers_without_a_route_name_the_prediction_alone(rig: Rig) -> None:
    answer = rig.infer(path="/versions/1")
    assert set(parameters(answer)) == {"prediction_id"}
    assert answer.headers["penstock-prediction-id"] == parameters(answer)["prediction_id"]
    assert "penstock-arm" not in answer.headers


def test_a_route_to_nobody_is_not_ready(start_rig: StartRig) -> None:
    """Its models are not in the repository, or none at all serve."""
    rig = start_rig(NAMED, prepare=nothing_else)
    for client in clients(rig.gateway):
        assert not client.is_model_ready("front")
        client.close()
    caller = CALLERS["grpc"](rig.gateway.grpc)
    caller.refused(NOT_FOUND, "nobody", {"x": X})
    caller.refused(UNAVAILABLE, "front", {"x": X})
    caller.close()


def nothing_else(folder: Path) -> None:
    """Another model alone."""
    harness.write_identity(folder, "BYTES")
