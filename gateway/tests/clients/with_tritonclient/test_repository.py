"""The repository extension: loading, unloading, failing loads, single versions, and who may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2, service_pb2_grpc

import wire
from calls import (
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    UNAVAILABLE,
    UNSUPPORTED,
    grpc_inputs,
    http_inputs,
    refusal,
)
from harness import Gateway

ONE = np.array([[1], [2]], np.float32)


@pytest.fixture(scope="module")
def small(start_gateway: Any) -> Gateway:
    """A gateway whose models the tests of this file change."""
    return start_gateway("", "times", "digits")


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, small: Gateway) -> Iterator[Any]:
    """Both blocking clients in turn, connected to the small gateway."""
    module = getattr(tritonclient, request.param)
    with module.InferenceServerClient(getattr(small, request.param)) as made:
        made.protocol = request.param
        yield made


@pytest.fixture(autouse=True)
def restored(small: Gateway) -> Iterator[None]:
    """After each test the models are loaded as their folders say, and the gateway is ready."""
    weights = {path: path.read_bytes() for path in small.repository.glob("times/*/model.pt")}
    manifest = small.repository / "times" / "model.toml"
    text = manifest.read_text()
    yield
    for path, content in weights.items():
        path.write_bytes(content)
    manifest.write_text(text)
    for name in ("times", "digits"):
        assert (
            wire.request(small.http, "POST", f"/v2/repository/models/{name}/load", b"").status
            == 200
        )
    assert wire.request(small.http, "GET", "/v2/health/ready").status == 200


def index(small: Gateway, name: str) -> dict[str, dict[str, str]]:
    """The lines of one model, by version."""
    lines = wire.request(small.http, "POST", "/v2/repository/index").json()
    return {line.get("version", ""): line for line in lines if line["name"] == name}


def times(client: Any, version: str = "") -> float:
    """The factor of the version that answers."""
    make = http_inputs if client.protocol == "http" else grpc_inputs
    answer = client.infer("times", make({"x": ONE}), model_version=version).as_numpy("y")
    assert answer[1] == 2 * answer[0]
    return float(answer[0, 0])


def test_unloading_takes_a_model_away_and_loading_brings_it_back(
    client: Any, small: Gateway
) -> None:
    client.unload_model("times")
    assert not client.is_model_ready("times")
    status, text = refusal(lambda: times(client))
    assert status in NOT_FOUND and "Request for unknown model: 'times'" in text
    assert {line["state"] for line in index(small, "times").values()} == {"UNAVAILABLE"}
    assert client.is_server_ready(), "a model that was taken away on purpose is not missed"
    client.load_model("times")
    assert client.is_model_ready("times")
    assert times(client) == 2


def test_unloading_with_dependents_is_understood(client: Any) -> None:
    client.unload_model("times", unload_dependents=True)
    assert not client.is_model_ready("times")


def test_loading_again_changes_nothing_for_callers(client: Any) -> None:
    client.load_model("times")
    assert times(client) == 2


def test_unknown_models_can_be_neither_loaded_nor_unloaded(client: Any) -> None:
    for call in (client.load_model, client.unload_model):
        status, text = refusal(lambda: call("nobody"))
        assert status in NOT_FOUND
        assert "Request for unknown model: 'nobody' is not found" in text


@pytest.mark.parametrize("name", ["..", "../times", "/etc", ".", "a%2Fb", "x" * 300])
def test_names_that_leave_the_repository_load_nothing(client: Any, name: str) -> None:
    status, text = refusal(lambda: client.load_model(name))
    assert status in ("400", "404", "StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")
    assert "passwd" not in text and "No such file" not in text


def test_a_truncated_file_does_not_load_and_what_served_still_does(
    client: Any, small: Gateway
) -> None:
    file = small.repository / "times" / "2" / "model.pt"
    file.write_bytes(file.read_bytes()[:200])
    status, text = refusal(lambda: client.load_model("times"))
    assert status in INVALID and "failed to load 'times'" in text and "version 2" in text
    assert str(small.repository) not in text
    assert times(client) == 2
    assert client.is_model_ready("times") and client.is_server_ready()
    line = index(small, "times")["2"]
    assert line["state"] == "READY" and line["reason"], "it serves, and says what went wrong"


def test_a_truncated_file_of_an_unloaded_model_is_unavailable_with_the_reason(
    client: Any, small: Gateway
) -> None:
    client.unload_model("times")
    file = small.repository / "times" / "2" / "model.pt"
    file.write_bytes(file.read_bytes()[:200])
    refusal(lambda: client.load_model("times"))
    line = index(small, "times")["2"]
    assert line["state"] == "UNAVAILABLE" and line["reason"]
    assert not client.is_model_ready("times")
    status, text = refusal(lambda: times(client))
    assert status in UNAVAILABLE, text


def test_a_wrong_checksum_does_not_load(client: Any, small: Gateway) -> None:
    manifest = small.repository / "times" / "model.toml"
    manifest.write_text(manifest.read_text() + f'\n[version.2]\nsha256 = "{"0" * 64}"\n')
    status, text = refusal(lambda: client.load_model("times"))
    assert status in INVALID and "failed to load" in text
    assert times(client) == 2


def test_a_broken_manifest_is_told_and_what_served_still_does(client: Any, small: Gateway) -> None:
    manifest = small.repository / "times" / "model.toml"
    manifest.write_text("max_batch_sise = 4\n")
    status, text = refusal(lambda: client.load_model("times"))
    assert status in INVALID and "max_batch_sise" in text
    assert times(client) == 2


def test_a_changed_policy_is_taken_up_by_the_next_load(client: Any, small: Gateway) -> None:
    manifest = small.repository / "times" / "model.toml"
    manifest.write_text(manifest.read_text() + '\n[versions]\npolicy = "all"\n')
    client.load_model("times")
    assert (times(client, "1"), times(client, "2"), times(client)) == (1, 2, 2)


def load_version(client: Any, small: Gateway, version: str) -> tuple[str, str]:
    """Loads one version, by the parameter or the path; its status and text."""
    if client.protocol == "http":
        target = f"/v2/repository/models/times/versions/{version}/load"
        answer = wire.request(small.http, "POST", target, b"")
        return str(answer.status), "" if answer.status == 200 else answer.error()
    request = service_pb2.RepositoryModelLoadRequest(model_name="times")
    request.parameters["version"].string_param = version
    return grpc_status(small, "RepositoryModelLoad", request)


def grpc_status(small: Gateway, method: str, request: Any) -> tuple[str, str]:
    """Status and text of a bare gRPC call."""
    import grpc

    with grpc.insecure_channel(small.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            getattr(stub, method)(request)
        except grpc.RpcError as error:
            return str(error.code()), error.details()
    return "StatusCode.OK", ""


def test_one_version_loads_beside_those_that_serve(client: Any, small: Gateway) -> None:
    assert refusal(lambda: times(client, "1"))[0] in NOT_FOUND
    status, text = load_version(client, small, "1")
    assert status in ("200", "StatusCode.OK"), text
    assert (times(client, "1"), times(client, "2"), times(client)) == (1, 2, 2)
    assert {v: line["state"] for v, line in index(small, "times").items()} == {
        "1": "READY",
        "2": "READY",
    }


def test_a_version_that_is_not_there_is_not_found(client: Any, small: Gateway) -> None:
    for version in ("9", "one", "0"):
        status, text = load_version(client, small, version)
        assert status in NOT_FOUND and version in text


def test_one_version_unloads_and_the_others_go_on(client: Any, small: Gateway) -> None:
    pixels = np.zeros((1, 64), np.float32)
    make = http_inputs if client.protocol == "http" else grpc_inputs
    if client.protocol == "http":
        target = "/v2/repository/models/digits/versions/2/unload"
        assert wire.request(small.http, "POST", target, b"").status == 200
    else:
        request = service_pb2.RepositoryModelUnloadRequest(model_name="digits")
        request.parameters["version"].string_param = "2"
        assert grpc_status(small, "RepositoryModelUnload", request) == ("StatusCode.OK", "")
    assert client.is_model_ready("digits", "1") and not client.is_model_ready("digits", "2")
    answer = client.infer("digits", make({"pixels": pixels})).get_response()
    version = answer["model_version"] if client.protocol == "http" else answer.model_version
    assert version == "1"


def test_a_version_that_no_policy_serves_can_be_asked_for(small: Gateway) -> None:
    target = "/v2/repository/models/digits/versions/3/load"
    assert wire.request(small.http, "POST", target, b"").status == 200
    assert wire.request(small.http, "GET", "/v2/models/digits/versions/3/ready").status == 200


def test_a_configuration_without_files_is_unsupported_not_ignored(client: Any) -> None:
    status, text = refusal(lambda: client.load_model("times", config='{"max_batch_size": 4}'))
    assert status in UNSUPPORTED and "model.toml" in text


def test_parameters_of_a_load_that_nobody_knows_are_refused(small: Gateway) -> None:
    for parameters in ('{"colour":"red"}', '{"config":7}', '{"file:1/model.pt":"%%"}'):
        body = f'{{"parameters":{parameters}}}'.encode()
        answer = wire.request(small.http, "POST", "/v2/repository/models/times/load", body)
        assert answer.status == 400, parameters
        answer.error()


@pytest.mark.parametrize("what", ["index", "models/times/load", "models/times/unload"])
def test_named_repositories_are_unsupported(small: Gateway, what: str) -> None:
    answer = wire.request(small.http, "POST", f"/v2/repository/main/{what}", b"{}")
    assert answer.status == 501
    answer.error()


def test_a_model_that_fails_its_warm_up_does_not_serve_and_the_others_do(
    start_gateway: Any,
) -> None:
    lacking = start_gateway("", "drops_rows", "times")
    with tritonclient.http.InferenceServerClient(lacking.http) as client:
        assert client.is_server_live() and client.is_server_ready()
        assert client.is_model_ready("times") and not client.is_model_ready("drops_rows")
        line = index(lacking, "drops_rows")["1"]
        assert line["state"] == "UNAVAILABLE" and "batch" in line["reason"]
        inputs = http_inputs({"x": np.ones((1, 2), np.float32)})
        assert refusal(lambda: client.infer("drops_rows", inputs))[0] == UNAVAILABLE[0]


def test_a_gateway_that_can_serve_nothing_is_not_ready(start_gateway: Any) -> None:
    empty = start_gateway("", "drops_rows", identities=False)
    with tritonclient.http.InferenceServerClient(empty.http) as client:
        assert client.is_server_live() and not client.is_server_ready()
        status = wire.request(empty.http, "GET", "/v2/health/ready")
        assert (status.status, status.json()) == (503, {"live": True, "ready": False})
    with tritonclient.grpc.InferenceServerClient(empty.grpc) as client:
        assert client.is_server_live() and not client.is_server_ready()


def test_control_off_refuses_changes_and_allows_looking(start_gateway: Any) -> None:
    closed = start_gateway('control = "off"\n', "times")
    with tritonclient.http.InferenceServerClient(closed.http) as http:
        for call in (http.load_model, http.unload_model):
            status, text = refusal(lambda: call("times"))
            assert status == FORBIDDEN[0] and "repository.control" in text
        assert http.get_model_repository_index()
        assert http.is_model_ready("times")
    for path in ("versions/1/load", "versions/2/unload"):
        answer = wire.request(closed.http, "POST", f"/v2/repository/models/times/{path}", b"")
        assert answer.status == 403
    with tritonclient.grpc.InferenceServerClient(closed.grpc) as grpc:
        for call in (grpc.load_model, grpc.unload_model):
            # Trap 15: clients retry UNAVAILABLE, so a refusal must be another status.
            assert refusal(lambda: call("times"))[0] == FORBIDDEN[1]
        assert grpc.get_model_repository_index().models
        assert grpc.is_model_ready("times")
