"""Circuit breakers: versions that keep failing are left alone, recover, and obey operators."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import wire
from calls import FAILED, INVALID, UNAVAILABLE, GrpcCaller, HttpCaller
from harness import Gateway, metric, running, wait_until

# Long enough that nothing recovers while a test looks.
FOR_LONG = '[breaker]\nopen_time = "10min"\nmax_open_time = "1h"\n'
ONE = np.ones((1, 2), np.float32)


def admin(gateway: Gateway, path: str, post: bool = False) -> Any:
    """What the admin port answers."""
    url = f"http://{gateway.admin}{path}"
    request = urllib.request.Request(url, data=b"" if post else None)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def breaker(gateway: Gateway, model: str) -> dict[str, Any]:
    """The breaker of a model's only version."""
    all_breakers = admin(gateway, "/v1/breakers")["breakers"]
    [found] = [one for one in all_breakers if one["model"] == model]
    return dict(found)


def both(gateway: Gateway) -> list[HttpCaller | GrpcCaller]:
    """A client of each protocol."""
    return [HttpCaller(gateway.http), GrpcCaller(gateway.grpc)]


def promise_numbers(model: Path) -> None:
    """Lets every output promise to be finite."""
    manifest = model / "model.toml"
    text = manifest.read_text().replace('[[output]]\nname = "y"', '[[output]]\nfinite = true\nname = "y"')
    assert "finite" in text
    manifest.write_text(text)


def test_an_operator_opens_and_closes_a_breaker(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway()
    callers = both(gateway)
    x = {"x": ONE}
    path = "/v1/breakers/identity_fp32/1"
    assert breaker(gateway, "identity_fp32")["state"] == "closed"
    assert admin(gateway, f"{path}/trip", post=True)["state"] == "open"
    for caller in callers:
        text = caller.refused(UNAVAILABLE, "identity_fp32", x)
        assert text == "the circuit breaker of identity_fp32/1 is open, try again later"
    answer = wire.infer(
        gateway.http, "identity_fp32", {"inputs": [wire.tensor("FP32", [1, 1], [1.0])]}
    )
    assert answer.status == 503 and answer.headers["retry-after"] == "60"
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
        assert not client.is_model_ready("identity_fp32")
        assert client.is_model_ready("identity_bytes") and client.is_server_ready()
    with tritonclient.http.InferenceServerClient(gateway.http) as client:
        assert not client.is_model_ready("identity_fp32")
        lines = {one["name"]: one for one in client.get_model_repository_index()}
        assert lines["identity_fp32"]["state"] == "READY"
        assert lines["identity_fp32"]["reason"] == "its circuit breaker is open: operator"
    states = {one["name"]: one["breaker"] for one in admin(gateway, "/v1/status")["models"]}
    assert states == {"identity_fp32": "open", "identity_bytes": "closed"}
    assert metric(gateway, "penstock_breaker_state", model="identity_fp32") == 1
    assert metric(gateway, "penstock_breaker_refused_total", model="identity_fp32") == 3
    refused = metric(gateway, "penstock_requests_total", outcome="circuit_open")
    assert refused == 3
    assert admin(gateway, f"{path}/reset", post=True)["state"] == "closed"
    for caller in callers:
        np.testing.assert_array_equal(caller.infer("identity_fp32", x)["y"], ONE)
        caller.close()
    assert metric(gateway, "penstock_breaker_state", model="identity_fp32") == 0


@pytest.mark.parametrize("path", ["nobody/1/trip", "identity_fp32/7/trip", "identity_fp32/1/mend"])
def test_breakers_that_are_not_there_are_not_found(start_gateway: Any, path: str) -> None:
    gateway: Gateway = start_gateway()
    with pytest.raises(urllib.error.HTTPError) as failed:
        admin(gateway, f"/v1/breakers/{path}", post=True)
    assert failed.value.code == 404


def test_who_sends_nan_to_a_model_that_promises_numbers_is_to_blame(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway(
        "", prepare=lambda models: promise_numbers(models / "identity_fp32")
    )
    bad = np.array([[1, np.nan]], np.float32)
    for caller in both(gateway):
        for _ in range(6):
            text = caller.refused(INVALID, "identity_fp32", {"x": bad})
            assert "input 'x'" in text and "output 'y'" in text
        caller.infer("identity_fp32", {"x": ONE})
        caller.close()
    assert breaker(gateway, "identity_fp32")["window"]["failed"] == 0


def test_a_model_that_breaks_is_left_alone_and_the_others_answer(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway(FOR_LONG, "breaks", "times")
    http, grpc = both(gateway)
    for turn in range(5):
        # The first breaks it, the others find it broken.
        bad = -ONE if turn == 0 else ONE
        (grpc if turn % 2 else http).refused(FAILED, "breaks", {"x": bad})
    for caller in (http, grpc):
        caller.refused(UNAVAILABLE, "breaks", {"x": ONE})
        caller.infer("times", {"x": np.ones((1, 1), np.float32)})
        caller.close()
    found = breaker(gateway, "breaks")
    assert (found["state"], found["reason"]) == ("open", "consecutive_failures")
    assert "the circuit breaker opened" in gateway.log_text()


def test_a_nan_storm_opens_the_breaker_and_good_answers_close_it(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway("[breaker]\nnan_answers = 4\n", "spoils")
    http, grpc = both(gateway)
    for turn in range(4):
        # The first spoils it, the others find it spoilt.
        answer = (grpc if turn % 2 else http).infer("spoils", {"x": ONE if turn else -ONE})
        assert np.isnan(answer["y"]).all()
    http.refused(UNAVAILABLE, "spoils", {"x": ONE})
    assert breaker(gateway, "spoils")["reason"] == "nan_storm"
    assert metric(gateway, "penstock_nan_answers_total", model="spoils") == 4
    wait_until(lambda: breaker(gateway, "spoils")["state"] == "half_open")
    for caller in (http, grpc, http):
        mends = ONE * 101
        np.testing.assert_array_equal(caller.infer("spoils", {"x": mends})["y"], mends)
    assert breaker(gateway, "spoils")["state"] == "closed"
    for caller in (http, grpc):
        caller.close()


def test_nan_that_comes_of_the_inputs_shuts_nobody_out(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway("[breaker]\nnan_answers = 4\n", "root")
    for caller in both(gateway):
        for _ in range(10):
            assert np.isnan(caller.infer("root", {"x": -ONE})["y"]).all()
        np.testing.assert_array_equal(caller.infer("root", {"x": ONE})["y"], ONE)
        caller.close()
    assert metric(gateway, "penstock_nan_answers_total", model="root") == 20


def test_an_answer_that_breaks_its_promise_of_numbers_fails(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway(
        FOR_LONG, "root", prepare=lambda models: promise_numbers(models / "root")
    )
    for caller in both(gateway):
        for _ in range(6):
            text = caller.refused(FAILED, "root", {"x": -ONE})
            assert "output 'y'" in text
        caller.infer("root", {"x": ONE})
        caller.close()
    assert breaker(gateway, "root")["window"]["failed"] == 0


def test_faults_of_callers_do_not_open_the_breaker(start_gateway: Any) -> None:
    gateway: Gateway = start_gateway("", "throws")
    for caller in both(gateway):
        for _ in range(10):
            caller.refused(INVALID, "throws", {"x": -ONE})
        caller.infer("throws", {"x": ONE})
        caller.close()
    assert breaker(gateway, "throws")["consecutive_failures"] == 0


def test_a_model_that_hangs_takes_one_thread_and_no_more(start_gateway: Any) -> None:
    settings = '[engine]\nrun_timeout = "1s"\ncpu_threads = 1\n[breaker]\nconsecutive = 1\n'
    gateway: Gateway = start_gateway(f'{settings}open_time = "10min"\nmax_open_time = "1h"\n', "slow")
    for_ever = {"loops": np.array([[2**62]], np.int64)}
    http, grpc = both(gateway)
    # Its caller has long gone when the thread is given up; that counts all the same.
    with tritonclient.grpc.InferenceServerClient(gateway.grpc) as client:
        inputs = [tritonclient.grpc.InferInput("loops", [1, 1], "INT64")]
        inputs[0].set_data_from_numpy(for_ever["loops"])
        with pytest.raises(tritonclient.grpc.InferenceServerException):
            client.infer("slow", inputs, client_timeout=0.3)
    assert running(gateway, "slow") == 1
    wait_until(lambda: breaker(gateway, "slow")["state"] == "open")
    for caller in (http, grpc):
        caller.refused(UNAVAILABLE, "slow", for_ever)
        caller.infer("identity_fp32", {"x": ONE})
        caller.close()
    engine = admin(gateway, "/v1/status")["engine"]
    assert (engine["stuck_threads"], engine["abandoned_threads"]) == (1, 1)
    assert engine["devices"] == [{"device": "cpu", "threads": 1, "wanted": 1}]
