"""Who may call: keys, tokens, roles and models, over both protocols and on the admin port."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.utils import InferenceServerException

import tokens
import wire
from calls import FORBIDDEN, UNAUTHENTICATED, grpc_inputs, http_inputs, refusal
from harness import Gateway, metric, wait_until

X = np.array([[1.5, -2.0]], np.float32)
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, -2.0]}]}

JOBS, JOBS_NEXT = "key-of-the-jobs-client", "next-key-of-the-jobs-client"
OPS, ROOT = "key-of-the-operators", "key-of-those-who-upload"
WRONG = "key-of-nobody-at-all"

Headers = dict[str, str]


def bearer(credential: str) -> Headers:
    return {"authorization": f"Bearer {credential}"}


@pytest.fixture(scope="module")
def issuer() -> tokens.Issuer:
    return tokens.Issuer("first")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, issuer: tokens.Issuer) -> Path:
    """The files of keys."""
    made = tmp_path_factory.mktemp("keys")
    (made / "jwks.json").write_text(json.dumps({"keys": [issuer.jwk()]}))
    (made / "ops").write_text(f"# operators\n{OPS}\n")
    return made


def settings(folder: Path) -> str:
    """Everybody of these tests; the log tells as much as it can."""
    return f"""
uploads = true
[log]
level = "trace"
[auth]
reload = "50ms"
[[auth.key]]
name = "jobs"
models = ["identity_fp*", "missing-but-mine"]
hashes = ["{tokens.hash_of(JOBS)}", "{tokens.hash_of(JOBS_NEXT)}"]
[[auth.key]]
name = "ops"
roles = ["operate"]
file = "{folder}/ops"
[[auth.key]]
name = "root"
roles = ["predict", "operate", "admin"]
hashes = ["{tokens.hash_of(ROOT)}"]
[auth.jwt]
jwks_file = "{folder}/jwks.json"
audience = ["penstock"]
roles_claim = "scope"
role_map = {{ ops = "operate" }}
"""


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, folder: Path) -> Gateway:
    return start_gateway(settings(folder))


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[Any]:
    """Both blocking clients in turn."""
    module = getattr(tritonclient, request.param)
    with module.InferenceServerClient(getattr(gateway, request.param)) as made:
        made.protocol = request.param
        yield made


def infer(client: Any, headers: Headers | None, model: str = "identity_fp32") -> np.ndarray:
    make = http_inputs if client.protocol == "http" else grpc_inputs
    # The client writes into the headers it is given.
    headers = dict(headers) if headers else None
    return client.infer(model, make({"x": X}), headers=headers).as_numpy("y")


def test_a_call_without_a_key_is_unauthenticated(client: Any) -> None:
    status, text = refusal(lambda: infer(client, None))
    assert status in UNAUTHENTICATED and text == "this call needs authentication"


@pytest.mark.parametrize(
    "headers",
    [
        bearer(WRONG),
        bearer(JOBS[:-1]),
        bearer(tokens.hash_of(JOBS)),
        {"x-api-key": WRONG},
        {"authorization": "Basic am9iczprZXk="},
        bearer(JOBS) | {"x-api-key": JOBS},
        bearer("k" * 9000),
        bearer("a.b.c"),
    ],
    ids=lambda headers: f"{list(headers.values())[0][:20]}-{len(headers)}",
)
def test_whatever_is_wrong_with_a_credential_the_words_are_the_same(
    client: Any, headers: Headers
) -> None:
    status, text = refusal(lambda: infer(client, headers))
    assert status in UNAUTHENTICATED and text == "the credentials are not valid"


@pytest.mark.parametrize("headers", [bearer(JOBS), bearer(JOBS_NEXT), {"x-api-key": JOBS}])
def test_every_key_of_a_client_is_good(client: Any, headers: Headers) -> None:
    np.testing.assert_array_equal(infer(client, headers), X)


def test_a_model_that_is_not_allowed_is_forbidden_whether_it_is_there_or_not(client: Any) -> None:
    answers = {
        refusal(lambda model=model: infer(client, bearer(JOBS), model))
        for model in ("identity_bytes", "missing")
    }
    assert len(answers) == 1
    status, text = answers.pop()
    assert status in FORBIDDEN and text == "this caller may not use this model"
    status, _ = refusal(lambda: infer(client, bearer(JOBS), "identity_fp_missing"))
    assert status in ("404", "StatusCode.NOT_FOUND"), "one's own models are told apart"


def test_reading_about_a_model_asks_for_the_same(client: Any) -> None:
    jobs = bearer(JOBS)
    assert client.is_model_ready("identity_fp32", headers=jobs)
    reads = [client.get_model_metadata, client.get_model_config, client.get_inference_statistics]
    for read in reads:
        assert read("identity_fp32", headers=jobs)
        assert refusal(lambda read=read: read("identity_bytes", headers=jobs))[0] in FORBIDDEN
        assert refusal(lambda read=read: read("identity_fp32"))[0] in UNAUTHENTICATED


def names(listed: Any) -> set[str]:
    """Names of the models in an answer of either client."""
    if isinstance(listed, list):
        return {entry["name"] for entry in listed}
    if isinstance(listed, dict):
        return {entry["name"] for entry in listed["model_stats"]}
    return {entry.name for entry in getattr(listed, "models", ()) or listed.model_stats}


def test_lists_hold_what_the_caller_may_use(client: Any) -> None:
    for read in (client.get_model_repository_index, client.get_inference_statistics):
        assert names(read(headers=bearer(JOBS))) == {"identity_fp32"}
        assert names(read(headers=bearer(OPS))) == {"identity_fp32", "identity_bytes"}
        assert refusal(read)[0] in UNAUTHENTICATED


def test_the_list_of_names_holds_what_the_caller_may_use(gateway: Gateway) -> None:
    answer = wire.request(gateway.http, "GET", "/v2/models", headers=bearer(JOBS))
    assert answer.json() == {"models": ["identity_fp32"]}


def test_changing_models_needs_the_role(client: Any) -> None:
    for call in (client.load_model, client.unload_model):
        status, text = refusal(lambda call=call: call("identity_fp32", headers=bearer(JOBS)))
        assert status in FORBIDDEN and "operate" in text
        assert refusal(lambda call=call: call("identity_fp32"))[0] in UNAUTHENTICATED
    client.unload_model("identity_bytes", headers=bearer(OPS))
    client.load_model("identity_bytes", headers=bearer(OPS))
    status, text = refusal(lambda: infer(client, bearer(OPS)))
    assert status in FORBIDDEN and "predict" in text, "a role brings no other with it"


def test_bringing_files_needs_one_more_role(client: Any) -> None:
    files, config = {"file:1/model.pt": b"no model"}, "{}"
    load = lambda key: client.load_model("new", bearer(key), config=config, files=files)
    status, text = refusal(lambda: load(OPS))
    assert status in FORBIDDEN and "admin" in text
    status, _ = refusal(lambda: load(ROOT))
    assert status in ("400", "StatusCode.INVALID_ARGUMENT"), "the files were looked at"


def test_log_settings_are_read_by_callers_and_changed_by_operators(client: Any) -> None:
    assert client.get_log_settings(headers=bearer(JOBS))
    change = lambda key: client.update_log_settings({"log_info": True}, headers=bearer(key))
    assert refusal(lambda: change(JOBS))[0] in FORBIDDEN
    assert refusal(client.get_log_settings)[0] in UNAUTHENTICATED


@pytest.mark.parametrize("headers", [None, bearer(WRONG)])
def test_health_and_the_servers_name_are_for_everybody(
    client: Any, headers: Headers | None
) -> None:
    assert client.is_server_live(headers=headers)
    assert client.is_server_ready(headers=headers)
    assert client.get_server_metadata(headers=headers)


def test_the_health_service_tells_strangers_of_the_server_alone(gateway: Gateway) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def check(service: str, *metadata: tuple[str, str]) -> Any:
            request = health_pb2.HealthCheckRequest(service=service)
            return stub.Check(request, metadata=metadata, timeout=30).status

        assert check("") == health_pb2.HealthCheckResponse.SERVING
        mine = ("authorization", f"Bearer {JOBS}")
        assert check("identity_fp32", mine) == health_pb2.HealthCheckResponse.SERVING
        for service, metadata in [
            ("identity_fp32", ()), ("identity_bytes", (mine,)), ("missing", ()),
        ]:  # fmt: skip
            with pytest.raises(grpc.RpcError) as error:
                check(service, *metadata)
            assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_needs_a_caller(gateway: Gateway) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        with pytest.raises(grpc.RpcError) as error:
            ProtoReflectionDescriptorDatabase(channel).get_services()
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_stream_is_as_good_as_its_credential(gateway: Gateway) -> None:
    for headers, model, good in [
        (bearer(JOBS), "identity_fp32", True),
        (bearer(JOBS), "identity_bytes", False),
        (None, "identity_fp32", False),
    ]:
        answers: queue.Queue[Any] = queue.Queue()
        with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
            client.start_stream(lambda result, error: answers.put((result, error)), headers=headers)
            with contextlib.suppress(InferenceServerException):  # the stream may have ended already
                client.async_stream_infer(model, grpc_inputs({"x": X}))
            result, error = answers.get(timeout=30)
        assert (error is None) == good, error


def test_tokens_are_taken_with_their_roles(client: Any, issuer: tokens.Issuer) -> None:
    np.testing.assert_array_equal(infer(client, bearer(issuer.token())), X)
    for scope, allowed in [("ops", True), ("other", False), ("operate", False)]:
        load = lambda scope=scope: client.load_model(
            "identity_bytes", headers=bearer(issuer.token(scope=scope))
        )
        if allowed:
            load()
        else:
            assert refusal(load)[0] in FORBIDDEN


def test_tokens_that_are_not_good_are_refused_in_the_same_words(
    client: Any, issuer: tokens.Issuer
) -> None:
    stranger = tokens.Issuer("first")
    header, claims, signature = issuer.token().split(".")
    none = tokens.encoded(b'{"alg":"none","typ":"JWT"}')
    for token in [
        issuer.token(exp=int(time.time()) - 60),
        issuer.token(nbf=int(time.time()) + 60),
        issuer.token(aud="somebody"),
        issuer.token(exp=None),
        issuer.token({"alg": "HS256"}),
        stranger.token(),
        f"{none}.{claims}.",
        f"{none}.{claims}.{signature}",
        f"{header}.{claims}.",
        f"{header}.{claims}.{signature[:-4]}AAAA",
        issuer.token(pad="x" * 9000),
    ]:
        status, text = refusal(lambda token=token: infer(client, bearer(token)))
        assert status in UNAUTHENTICATED and text == "the credentials are not valid"


def test_refusals_are_counted(client: Any, gateway: Gateway) -> None:
    def counted(outcome: str) -> float:
        labels = {"protocol": client.protocol, "outcome": outcome, "model": ""}
        return metric(gateway, "penstock_requests_total", **labels)

    before = [counted(outcome) for outcome in ("unauthenticated", "permission_denied")]
    refusal(lambda: infer(client, None))
    refusal(lambda: infer(client, bearer(JOBS), "identity_bytes"))
    client.is_server_live()
    after = [counted(outcome) for outcome in ("unauthenticated", "permission_denied")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1]
    assert metric(gateway, "penstock_auth_refused_total", reason="nothing") > 0


def test_http_names_the_scheme_and_nothing_more(gateway: Gateway) -> None:
    for headers in ({}, bearer(WRONG)):
        answer = wire.infer(gateway.http, "identity_fp32", BODY, headers=headers)
        assert answer.status == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert answer.error()
    answer = wire.infer(gateway.http, "identity_bytes", BODY, headers=bearer(JOBS))
    assert answer.status == 403 and "www-authenticate" not in answer.headers


def test_a_connection_outlives_a_refusal_without_a_body(gateway: Gateway) -> None:
    host, port = gateway.http.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        for _ in range(3):
            connection.request("GET", "/v2/models")
            answer = connection.getresponse()
            assert answer.status == 401 and answer.read()
            assert answer.getheader("connection") != "close" and connection.sock
    finally:
        connection.close()


@pytest.mark.parametrize("size", [10, 100_000, 5_000_000])
def test_a_body_that_nobody_read_is_never_taken_for_a_request(gateway: Gateway, size: int) -> None:
    """A body that looks like requests: the connection ends, and the caller is told."""
    smuggled = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    body = (smuggled * (size // len(smuggled) + 1))[:size]
    host, port = gateway.http.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        try:
            connection.request("POST", "/v2/models/identity_fp32/infer", body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused while it was being sent
        answer = connection.getresponse()
        assert answer.status == 401 and answer.read()
        assert answer.getheader("connection") == "close"
        connection.request("GET", "/v2/models/identity_fp32", headers=bearer(JOBS))
        answer = connection.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["name"] == "identity_fp32"
    finally:
        connection.close()


def test_a_caller_who_asks_first_sends_no_body(gateway: Gateway) -> None:
    host, port = gateway.http.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            b"POST /v2/models/identity_fp32/infer HTTP/1.1\r\nhost: x\r\n"
            b"content-length: 1000000\r\nexpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_the_admin_port_asks_for_operators(gateway: Gateway, issuer: tokens.Issuer) -> None:
    for headers, expected in [
        ({}, 401),
        (bearer(WRONG), 401),
        (bearer(JOBS), 403),
        (bearer(issuer.token()), 403),
        (bearer(OPS), 200),
        (bearer(issuer.token(scope="ops")), 200),
    ]:
        answer = wire.request(gateway.admin, "GET", "/v1/status", headers=headers)
        assert answer.status == expected, headers
        assert ("www-authenticate" in answer.headers) == (expected == 401)


def test_keys_are_exchanged_in_their_file_without_a_restart(gateway: Gateway, folder: Path) -> None:
    def status(key: str) -> int:
        return wire.request(gateway.admin, "GET", "/v1/status", headers=bearer(key)).status

    new = "another-key-of-the-operators"
    (folder / "ops").write_text(f"{OPS}\n{tokens.hash_of(new)}\n")
    wait_until(lambda: status(new) == 200)
    assert status(OPS) == 200
    (folder / "ops").write_text("broken")
    wait_until(lambda: metric(gateway, "penstock_auth_reloads_total", result="failed") >= 2)
    assert status(new) == 200, "the last good keys count"
    (folder / "ops").write_text(f"{OPS}\n")
    wait_until(lambda: status(new) == 401)
    assert status(OPS) == 200


def test_keys_of_an_issuer_are_exchanged_without_a_restart(
    gateway: Gateway, folder: Path, issuer: tokens.Issuer
) -> None:
    def status(token: str) -> int:
        return wire.request(gateway.http, "GET", "/v2/models", headers=bearer(token)).status

    second = tokens.Issuer("second")
    old, new = issuer.token(), second.token()
    assert (status(old), status(new)) == (200, 401)
    (folder / "jwks.json").write_text(json.dumps({"keys": [second.jwk()]}))
    wait_until(lambda: status(new) == 200)
    assert status(old) == 401
    (folder / "jwks.json").write_text(json.dumps({"keys": [issuer.jwk()]}))
    wait_until(lambda: status(old) == 200)


def test_no_secret_is_ever_written(gateway: Gateway, issuer: tokens.Issuer) -> None:
    wire.request(gateway.http, "GET", "/v2/models", headers=bearer(issuer.token()))
    wire.request(gateway.http, "GET", "/v2/models", headers=bearer(WRONG))
    # The log is written behind the calls: once the last one stands there, all of it does.
    wire.request(gateway.http, "GET", "/v2/models/the-last-one", headers=bearer(ROOT))
    wait_until(lambda: "the-last-one" in gateway.log_text())
    written = gateway.log_text() + json.dumps(gateway.summary)
    assert "not recognised" in written, "the log tells what it can"
    token = issuer.token().split(".")
    for secret in (JOBS, JOBS_NEXT, OPS, ROOT, WRONG, tokens.hash_of(JOBS)[7:], token[0]):
        assert secret not in written


def test_anonymous_callers_do_what_the_file_says_and_no_more(
    start_gateway: Any, folder: Path
) -> None:
    anonymous = settings(folder).replace("[auth]\n", '[auth]\nanonymous = ["predict"]\n')
    gateway: Gateway = start_gateway(anonymous)
    assert wire.infer(gateway.http, "identity_bytes", {}).status == 400, "it was read"
    assert wire.infer(gateway.http, "identity_fp32", BODY).status == 200
    assert wire.infer(gateway.http, "identity_fp32", BODY, headers=bearer(WRONG)).status == 401
    load = "/v2/repository/models/identity_fp32/load"
    assert wire.request(gateway.http, "POST", load, b"").status == 403, "loopback gives nothing"
    assert wire.request(gateway.http, "POST", load, b"", headers=bearer(OPS)).status == 200
    assert wire.request(gateway.admin, "GET", "/v1/status").status == 403


def test_without_any_word_about_callers_nothing_is_asked(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway('control = "off"\n')
    assert wire.infer(gateway.http, "identity_fp32", BODY, headers=bearer(WRONG)).status == 200
    load = "/v2/repository/models/identity_fp32/load"
    assert wire.request(gateway.http, "POST", load, b"").status == 403
    assert wire.request(gateway.admin, "GET", "/v1/status").status == 200, "whoever is here"
