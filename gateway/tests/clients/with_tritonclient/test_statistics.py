"""The statistics extension: every member is there, and counts move by exactly what was sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.http

import wire
from calls import INVALID, NOT_FOUND, Caller, refusal
from harness import Gateway

DURATIONS = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
    "cache_miss",
)  # fmt: skip


def statistics(client: Any, model: str, version: str = "") -> list[dict[str, Any]]:
    """The entries of a model, as they come."""
    more = {"as_json": True} if client.protocol == "grpc" else {}
    return client.get_inference_statistics(model, version, **more).get("model_stats", [])


def counts(http_client: Any, model: str, version: str = "") -> dict[str, int]:
    """The counts of one version, which statistics over HTTP print as numbers."""
    [entry] = http_client.get_inference_statistics(model, version)["model_stats"]
    found = {name: entry["inference_stats"][name]["count"] for name in DURATIONS}
    found["rows"] = entry["inference_count"]
    found["runs"] = entry["execution_count"]
    return found


def test_every_member_that_load_generators_index_is_there(http_client: Any) -> None:
    x = np.ones((3, 4), np.float32)
    http_client.infer("echo_fp32", [_input(x)])
    [entry] = http_client.get_inference_statistics("echo_fp32")["model_stats"]
    assert entry["name"] == "echo_fp32" and entry["version"] == "1"
    assert entry["last_inference"] > 1_600_000_000_000
    assert set(entry["inference_stats"]) == set(DURATIONS)
    for name in DURATIONS:
        assert set(entry["inference_stats"][name]) == {"count", "ns"}
        assert all(isinstance(value, int) for value in entry["inference_stats"][name].values())
    assert entry["inference_stats"]["success"]["ns"] > 0
    assert entry["response_stats"] == {} and entry["memory_usage"] == []
    batch = next(b for b in entry["batch_stats"] if b["batch_size"] == 3)
    for name in ("compute_input", "compute_infer", "compute_output"):
        assert set(batch[name]) == {"count", "ns"}


def _input(array: np.ndarray) -> Any:
    made = tritonclient.http.InferInput("x", list(array.shape), "FP32")
    return made.set_data_from_numpy(array)


@pytest.mark.parametrize("rows", [1, 5])
def test_counts_move_by_exactly_what_was_sent(caller: Caller, http_client: Any, rows: int) -> None:
    before = counts(http_client, "echo_fp64")
    for _ in range(7):
        caller.infer("echo_fp64", {"x": np.ones((rows, 2))})
    after = counts(http_client, "echo_fp64")
    moved = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    calls = dict.fromkeys(
        ["success", "queue", "compute_input", "compute_infer", "compute_output"], 7
    )
    assert moved == calls | {"rows": 7 * rows, "runs": 7}


def test_refused_calls_count_as_failures_and_nothing_else(caller: Caller, http_client: Any) -> None:
    before = counts(http_client, "echo_fp64")
    for _ in range(3):
        caller.refused(INVALID, "echo_fp64", {"x": np.ones((9, 2), np.float32)})
    after = counts(http_client, "echo_fp64")
    assert {n: after[n] - before[n] for n in after if after[n] != before[n]} == {"fail": 3}


def test_versions_count_for_themselves(caller: Caller, http_client: Any) -> None:
    before = [counts(http_client, "digits", version)["rows"] for version in ("1", "2")]
    pixels = np.zeros((4, 64), np.float32)
    caller.infer("digits", {"pixels": pixels}, model_version="1")
    after = [counts(http_client, "digits", version)["rows"] for version in ("1", "2")]
    assert [b - a for a, b in zip(before, after)] == [4, 0]


def test_without_a_version_every_version_is_told(client: Any) -> None:
    entries = statistics(client, "digits")
    assert [entry["version"] for entry in entries] == ["1", "2"]
    assert [entry["version"] for entry in statistics(client, "digits", "1")] == ["1"]


def test_without_a_model_every_model_is_told(client: Any, gateway: Gateway) -> None:
    told = {(entry["name"], entry["version"]) for entry in statistics(client, "")}
    ready = wire.request(gateway.http, "POST", "/v2/repository/index", b'{"ready":true}').json()
    assert told == {(entry["name"], entry["version"]) for entry in ready}


def test_a_model_that_nobody_called_has_zeros_and_its_warm_up_does_not_count(
    http_client: Any,
) -> None:
    zeros = counts(http_client, "identity_fp16", "1")
    untouched = counts(http_client, "mlp", "1")
    assert set(untouched.values()) == {0}
    assert set(zeros) == set(untouched)


def test_statistics_of_unknown_models_are_not_found(client: Any) -> None:
    for model, version in [("nobody", ""), ("digits", "9")]:
        status, _ = refusal(lambda: statistics(client, model, version))
        assert status in NOT_FOUND


def test_metrics_agree_with_statistics(gateway: Gateway, http_client: Any) -> None:
    found = counts(http_client, "echo_fp64", "1")
    text = wire.request(gateway.metrics, "GET", "/metrics").body.decode()
    line = 'nv_inference_request_success{model="echo_fp64",version="1"} '
    assert f"{line}{found['success']}" in text
