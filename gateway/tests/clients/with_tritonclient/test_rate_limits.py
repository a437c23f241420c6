"""Rates, quotas and shadowed limits over both protocols, and the admin port's account of them."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

import harness
import wire
from calls import CALLERS, INVALID, Caller, grpc_inputs
from harness import Gateway, metric, wait_until, waiting

LIMITED = ("429", "StatusCode.RESOURCE_EXHAUSTED")
X = np.ones((1, 3), np.float32)

RULES = """
[[rate_limit]]
name = "per-user"
key = "header:x-user-id"
rate = "2/h"
[[rate_limit]]
name = "rows"
key = "model"
rate = "100/h"
burst = 5
cost = "rows"
models = ["rows*"]
[[rate_limit]]
name = "watched"
key = "global"
rate = "1/h"
mode = "shadow"
models = ["watched"]
[[quota]]
name = "at-once"
key = "identity"
max_in_flight = 1
models = ["slow"]
"""


def rows_model(caller: str) -> str:
    """The model whose rows one kind of client may use up."""
    return f"rows-{caller.replace('.', '-')}"


def prepare(repository: Path) -> None:
    """Models by the limits that are about them; `slow` waits for calls that do not come."""
    for name in ("plain", "watched", *(rows_model(name) for name in CALLERS)):
        harness.write_identity(repository, "FP32", name=name)
    delay = '[batching]\nmax_delay = "3s"\n'
    harness.write_identity(repository, "FP32", name="slow", more=delay)


@pytest.fixture(scope="module")
def limited(start_gateway: Any) -> Gateway:
    """A gateway with one limit of each kind."""
    return start_gateway(RULES, identities=False, prepare=prepare)


@pytest.fixture(scope="module", params=CALLERS)
def caller(request: pytest.FixtureRequest, limited: Gateway) -> Any:
    """Each of the four clients in turn."""
    address = limited.http if request.param.startswith("http") else limited.grpc
    made = CALLERS[request.param](address)
    made.name = request.param
    yield made
    made.close()


def limits(gateway: Gateway) -> dict[str, Any]:
    """What the admin port says of all limits, by name."""
    answer = wire.request(gateway.admin, "GET", "/v1/limits")
    assert answer.status == 200
    body = answer.json()
    return {one["name"]: one for one in [*body["rate_limits"], *body["quotas"]]}


def test_a_user_over_his_rate_is_told_so_and_others_are_answered(caller: Any) -> None:
    """On one connection: a refusal before the body was read leaves it usable."""
    user = {"x-user-id": caller.name}
    for _ in range(2):
        np.testing.assert_array_equal(caller.infer("plain", {"x": X}, headers=user)["y"], X)
    for _ in range(3):
        text = caller.refused(LIMITED, "plain", {"x": X}, headers=user)
        assert "per-user" in text and caller.name not in text
    other = {"x-user-id": f"{caller.name} too"}
    np.testing.assert_array_equal(caller.infer("plain", {"x": X}, headers=other)["y"], X)


def test_http_refusals_carry_the_limit_and_when_to_come_back(limited: Gateway) -> None:
    body = {"inputs": [wire.tensor("FP32", [1, 3], [1, 2, 3])]}
    user = {"x-user-id": "headers over http"}
    answers = [wire.infer(limited.http, "plain", body, user) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    headers = answers[2].headers
    assert 1700 < int(headers["retry-after"]) <= 1800
    assert headers["ratelimit"] == f'"per-user";r=0;t={headers["retry-after"]}'
    assert headers["ratelimit-policy"] == '"per-user";q=2;w=3600'
    assert "per-user" in answers[2].error()


def test_a_large_body_is_not_waited_for_when_its_sender_is_over_the_rate(limited: Gateway) -> None:
    user = "X-User-Id: impatient\r\n"
    path = "POST /v2/models/plain/infer HTTP/1.1\r\nHost: a\r\n"
    for expected in (b"HTTP/1.1 400", b"HTTP/1.1 400", b"HTTP/1.1 429"):
        with wire.connect(limited.http) as connection:
            length = 2 if expected.endswith(b"400") else 10_000_000
            connection.sendall(f"{path}{user}Content-Length: {length}\r\n\r\n{{}}".encode())
            assert connection.recv(65536).startswith(expected)


def test_grpc_refusals_carry_the_same_as_metadata(limited: Gateway) -> None:
    message = pb.ModelInferRequest(model_name="plain", raw_input_contents=[X.tobytes()])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    user = (("x-user-id", "headers over grpc"),)
    with grpc.insecure_channel(limited.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(2):
            stub.ModelInfer(message, metadata=user)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(message, metadata=user)
    error = caught.value
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    found = {key: value for key, value in [*error.initial_metadata(), *error.trailing_metadata()]}
    seconds = int(found["retry-after"])
    assert 1700 < seconds <= 1800
    assert seconds - 1 <= int(found["grpc-retry-pushback-ms"]) / 1000 <= seconds
    assert found["ratelimit"] == f'"per-user";r=0;t={seconds}'
    assert found["ratelimit-policy"] == '"per-user";q=2;w=3600'


def test_each_message_of_a_stream_counts(limited: Gateway) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with tritonclient.grpc.InferenceServerClient(limited.grpc) as client:
        client.start_stream(
            lambda result, error: answers.put((result, error)), headers={"x-user-id": "streamer"}
        )
        for index in range(4):
            client.async_stream_infer("plain", grpc_inputs({"x": X}), request_id=str(index))
        found = [answers.get(timeout=30) for _ in range(4)]
        client.stop_stream()
    errors = [error.message() if error else "" for _, error in found]
    assert errors[:2] == ["", ""] and all("per-user" in error for error in errors[2:]), errors


def test_rows_are_a_cost_and_what_never_fits_is_invalid(caller: Any) -> None:
    model = rows_model(caller.name)
    user = {"x-user-id": f"rows {caller.name}"}
    three = np.ones((3, 2), np.float32)
    assert caller.infer(model, {"x": three}, headers=user)["y"].shape == (3, 2)
    text = caller.refused(LIMITED, model, {"x": three}, headers=user)
    assert "rows" in text
    user = {"x-user-id": f"more rows {caller.name}"}
    text = caller.refused(INVALID, model, {"x": np.ones((6, 2), np.float32)}, headers=user)
    assert "never lets more than 5" in text
    assert caller.infer(model, {"x": three[:2]}, headers=user)["y"].shape == (2, 2)


def test_a_shadowed_limit_refuses_nobody_and_counts(limited: Gateway, caller: Caller) -> None:
    before = limits(limited)["watched"]
    for index in range(2):
        user = {"x-user-id": f"shadow {id(caller)} {index}"}
        caller.infer("watched", {"x": X}, headers=user)
    after = limits(limited)["watched"]
    assert after["limited"] == 0
    total = lambda one: one["admitted"] + one["would_limit"]
    assert total(after) == total(before) + 2 and after["would_limit"] > before["would_limit"]
    would = metric(limited, "penstock_limit_checks_total", limit="watched", result="would_limit")
    assert would == after["would_limit"]


def in_background(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Starts a call; its answer comes into the list."""
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    return thread, answers


def test_a_quota_holds_while_a_call_is_under_way(limited: Gateway) -> None:
    body = {"inputs": [wire.tensor("FP32", [1, 3], [1, 2, 3])]}
    user = lambda name: {"x-user-id": f"quota {name}"}
    thread, answers = in_background(lambda: wire.infer(limited.http, "slow", body, user(1)))
    wait_until(lambda: waiting(limited, "slow") == 1)
    refused = wire.infer(limited.http, "slow", body, user(2))
    assert not answers, "it was under way all the time"
    assert refused.status == 429 and refused.headers["retry-after"] == "1"
    assert refused.headers["ratelimit-policy"] == '"at-once";q=1;qu="concurrent-requests"'
    assert limits(limited)["at-once"]["keys"] == 1
    thread.join()
    assert answers[0].status == 200
    assert limits(limited)["at-once"]["keys"] == 0
    assert wire.infer(limited.http, "slow", body, user(3)).status == 200


def test_a_caller_that_goes_away_leaves_its_room(limited: Gateway) -> None:
    text = json.dumps({"inputs": [wire.tensor("FP32", [1, 3], [1, 2, 3])]})
    head = "POST /v2/models/slow/infer HTTP/1.1\r\nHost: a\r\nX-User-Id: gone\r\n"
    with wire.connect(limited.http) as connection:
        connection.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())
        wait_until(lambda: limits(limited)["at-once"]["keys"] == 1)
    wait_until(lambda: limits(limited)["at-once"]["keys"] == 0)


def test_health_and_metadata_are_not_limited(limited: Gateway) -> None:
    for _ in range(5):
        for path in ("/v2/health/ready", "/v2/models/plain"):
            answer = wire.request(limited.http, "GET", path, headers={"x-user-id": "metadata"})
            assert answer.status == 200


def test_refusals_are_counted_by_protocol_and_limit(limited: Gateway) -> None:
    body = {"inputs": [wire.tensor("FP32", [1, 3], [1, 2, 3])]}
    counted = lambda: metric(
        limited, "penstock_requests_total", protocol="http", outcome="rate_limited"
    )
    before, of_limit = counted(), limits(limited)["per-user"]["limited"]
    for _ in range(4):
        wire.infer(limited.http, "plain", body, {"x-user-id": "counted"})
    assert counted() == before + 2
    assert limits(limited)["per-user"]["limited"] == of_limit + 2


def test_thousands_of_keys_stay_within_the_cap(start_gateway: Any) -> None:
    rule = '[[rate_limit]]\nname = "a"\nkey = "header:x-k"\nrate = "1/h"\nmax_keys = 50\n'
    gateway = start_gateway(rule)
    body = {"inputs": [wire.tensor("FP32", [1, 3], [1, 2, 3])]}
    known = wire.infer(gateway.http, "identity_fp32", body, {"x-k": "known"})
    answers = [wire.infer(gateway.http, "identity_fp32", body, {"x-k": str(i)}) for i in range(200)]
    statuses = [answer.status for answer in answers]
    # 49 have room beside the known one; all others share one allowance.
    assert known.status == 200 and statuses.count(200) == 50
    found = limits(gateway)["a"]
    assert found["keys"] == 50 and found["overflow"] == 151, found
