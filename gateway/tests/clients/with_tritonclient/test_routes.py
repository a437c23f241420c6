"""Routes with the real binary: who gets which arm, changes by hand, restarts, and the file."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

import tokens
import wire
from calls import grpc_inputs
from harness import gateway_binary
from routed import CANARY, MODEL, X, Rig, parameters

OPS = "key-of-the-operators"


def test_callers_are_divided_and_keep_their_arm_over_both_protocols(rig: Rig) -> None:
    """A fifth of the users get version 2, over HTTP and gRPC the same ones."""
    by_http = {}
    for user in range(300):
        answer = rig.infer(x_user_id=f"user-{user}")
        said = parameters(answer)
        assert said["route"] == MODEL and len(said["prediction_id"]) == 36
        assert answer.headers["penstock-arm"] == said["arm"]
        assert answer.headers["penstock-prediction-id"] == said["prediction_id"]
        version = {"stable": "1", "canary": "2"}[said["arm"]]
        assert answer.json()["model_version"] == version
        by_http[user] = said["arm"]
    share = Counter(by_http.values())["canary"] / len(by_http)
    assert 0.12 < share < 0.28, share
    with tritonclient.grpc.InferenceServerClient(rig.gateway.grpc) as client:
        for user, arm in list(by_http.items())[:50]:
            headers = {"x-user-id": f"user-{user}"}
            said = client.infer(MODEL, grpc_inputs({"x": X}), headers=headers).get_response()
            assert said.parameters["arm"].string_param == arm
            assert said.parameters["route"].string_param == MODEL
            assert len(said.parameters["prediction_id"].string_param) == 36


def test_grpc_answers_say_the_same_in_their_metadata(rig: Rig) -> None:
    """`penstock-arm` and `penstock-prediction-id` over gRPC."""
    request = tritonclient.grpc.service_pb2.ModelInferRequest(model_name=MODEL)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    tensor.contents.fp32_contents.extend([1.5, -2.0])
    with grpc.insecure_channel(rig.gateway.grpc) as channel:
        stub = tritonclient.grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer, call = stub.ModelInfer.with_call(request, timeout=30)
    metadata = dict((*call.initial_metadata(), *call.trailing_metadata()))
    assert metadata["penstock-arm"] == answer.parameters["arm"].string_param
    said = answer.parameters["prediction_id"].string_param
    assert metadata["penstock-prediction-id"] == said


def test_shares_are_set_and_taken_back_by_command(rig: Rig) -> None:
    """Set, a stale revision, and the way back; the first callers of the canary stay there."""
    before = {user: parameters(rig.infer(x_user_id=str(user)))["arm"] for user in range(100)}
    revision = rig.done("route", "list")["revision"]
    changed = rig.done("route", "set", MODEL, "canary=60%", "--expect-revision", str(revision))
    assert changed["revision"] == revision + 1 and changed["diff"]
    assert rig.shares() == {"stable": "40%", "canary": "60%"}
    after = {user: parameters(rig.infer(x_user_id=str(user)))["arm"] for user in range(100)}
    assert all(after[user] == "canary" for user, arm in before.items() if arm == "canary")
    assert Counter(after.values())["canary"] > Counter(before.values())["canary"]

    stale = rig.run("route", "set", MODEL, "canary=1%", "--expect-revision", str(revision))
    assert stale.returncode == 1
    assert str(revision + 1) in stale.stderr and stale.stderr.count("\n") == 1, stale.stderr
    body = json.dumps({"shares": {"canary": "1%"}, "expect_revision": revision}).encode()
    answer = wire.request(rig.gateway.admin, "PATCH", f"/v1/routes/{MODEL}", body)
    assert (answer.status, answer.json()["revision"]) == (409, revision + 1)

    restored = rig.done("rollback", "--reason", "worse")
    assert restored["restored"] == revision
    assert {user: parameters(rig.infer(x_user_id=str(user)))["arm"] for user in before} == before
    listed = rig.done("revisions", "2")["revisions"]
    assert [one["cause"] for one in listed] == ["rollback", "set"]
    assert listed[0]["reason"] == "worse"
    table = rig.run("revisions")
    assert table.returncode == 0 and "worse" in table.stdout


def test_what_was_set_by_hand_outlives_a_restart_and_not_a_change_of_the_file(rig: Rig) -> None:
    """The overlay: kept in the state folder, ended by a file that says otherwise."""
    rig.done("route", "set", MODEL, "canary=35%")
    rig.restart()
    assert rig.shares()["canary"] == "35%"
    assert rig.done("route", "show", MODEL)["source"] == "overlay"
    rig.write(CANARY.replace("20%", "50%"))
    reloaded = rig.done("reload")
    assert reloaded["changed"] and rig.shares()["canary"] == "50%"
    assert rig.done("route", "show", MODEL)["source"] == "file"
    assert not rig.done("reload")["changed"]


def test_a_bad_file_changes_nothing_and_is_shown(rig: Rig) -> None:
    """All of it or nothing, with every problem named."""
    before = rig.done("route", "list")
    rig.write(CANARY.replace('share = "20%"', 'share = "120%"\n  unknown = 1'))
    refused = rig.run("reload")
    assert refused.returncode == 64
    assert "share" in refused.stderr and "unknown" in refused.stderr, refused.stderr
    status = wire.request(rig.gateway.admin, "GET", "/v1/status").json()
    assert "share" in status["config"]["last_error"]
    assert rig.done("route", "list")["revision"] == before["revision"]
    assert rig.shares()["canary"] == "20%"
    shown = subprocess.run(
        [gateway_binary(), "status", "--url", f"http://{rig.gateway.http}"]
        + ["--admin", f"http://{rig.gateway.admin}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "NOT applied" in shown.stdout, shown.stdout
    rig.write(CANARY)
    rig.done("reload")
    status = wire.request(rig.gateway.admin, "GET", "/v1/status").json()
    assert status["config"]["last_error"] is None


def test_labels_and_numbers_name_versions_directly(rig: Rig) -> None:
    """A number goes around the route, the name of an arm to it, a label to its version."""
    for path, version in [("1", "1"), ("2", "2"), ("canary", "2"), ("base", "1"), ("new", "2")]:
        answer = rig.infer(path=f"/versions/{path}")
        assert answer.json()["model_version"] == version, path
    assert "route" not in parameters(rig.infer(path="/versions/1"))
    assert rig.infer(path="/versions/nobody").status == 404


def test_testers_and_operators_name_their_arm(
    start_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    """`penstock-arm` for those whom the route names, and for operators; others are told no."""
    keys = {"qa-jane": "key-of-the-tester-jane", "app": "key-of-the-application"}
    more = "".join(
        f'[[auth.key]]\nname = "{name}"\nhashes = ["{tokens.hash_of(key)}"]\n'
        for name, key in keys.items()
    )
    more += (
        f'[[auth.key]]\nname = "ops"\nroles = ["predict", "operate"]\n'
        f'hashes = ["{tokens.hash_of(OPS)}"]\n'
    )
    rig = start_rig(more=more)
    for key in (keys["qa-jane"], OPS):
        for arm in ("stable", "canary"):
            answer = rig.infer(x_api_key=key, penstock_arm=arm)
            assert parameters(answer)["arm"] == arm
    assert rig.infer(x_api_key=keys["app"], penstock_arm="canary").status == 403
    with tritonclient.grpc.InferenceServerClient(rig.gateway.grpc) as client:
        headers = {"x-api-key": keys["app"], "penstock-arm": "canary"}
        with pytest.raises(InferenceServerException, match="PERMISSION_DENIED"):
            client.infer(MODEL, grpc_inputs({"x": X}), headers=headers)
    refused = rig.run("route", "set", MODEL, "canary=30%", token=keys["app"])
    assert refused.returncode == 1 and "operate" in refused.stderr
    changed = rig.run("route", "set", MODEL, "canary=30%", token=OPS)
    assert changed.returncode == 0, changed.stderr
    lines = (tmp_path / "state" / "audit.jsonl").read_text().splitlines()
    authors = [json.loads(line)["author"] for line in lines]
    assert authors[-2:] == ["app", "ops"]
    assert OPS not in "".join(lines)
