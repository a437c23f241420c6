"""Health, metadata, configuration and the index, as tritonclient reads them."""

from __future__ import annotations

from typing import Any

import pytest

import wire
from calls import NOT_FOUND, refusal
from harness import Gateway

IMPLEMENTED = {
    "classification", "model_repository", "model_repository(unload_dependents)",
    "model_configuration", "binary_tensor_data", "parameters", "schedule_policy", "statistics",
    "logging",
}  # fmt: skip


def as_json(client: Any) -> dict[str, Any]:
    """gRPC answers are wanted as JSON, too."""
    return {"as_json": True} if client.protocol == "grpc" else {}


def test_the_server_is_live_and_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()


def test_exactly_the_implemented_extensions_are_advertised(client: Any) -> None:
    metadata = client.get_server_metadata(**as_json(client))
    assert metadata["name"] == "penstock"
    assert metadata["version"]
    assert set(metadata["extensions"]) == IMPLEMENTED


def test_metadata_gives_versions_as_text_and_shapes_with_the_batch_dimension(client: Any) -> None:
    metadata = client.get_model_metadata("digits", **as_json(client))
    assert metadata["name"] == "digits"
    assert metadata["versions"] == ["1", "2"]
    assert metadata["platform"] == "pytorch_torchscript"
    [pixels], [logits] = metadata["inputs"], metadata["outputs"]
    assert (pixels["name"], pixels["datatype"]) == ("pixels", "FP32")
    assert (logits["name"], logits["datatype"]) == ("logits", "FP32")
    assert [int(size) for size in pixels["shape"]] == [-1, 64]
    assert [int(size) for size in logits["shape"]] == [-1, 10]


def test_metadata_of_one_version_is_there(client: Any) -> None:
    assert client.get_model_metadata("digits", "1", **as_json(client))["name"] == "digits"


def test_a_model_that_does_not_batch_has_its_bare_shape(client: Any) -> None:
    metadata = client.get_model_metadata("transpose", **as_json(client))
    assert [int(size) for size in metadata["inputs"][0]["shape"]] == [2, 3]
    assert [int(size) for size in metadata["outputs"][0]["shape"]] == [3, 2]


def test_the_configuration_has_what_load_generators_read(client: Any) -> None:
    config = client.get_model_config("add_sub", **as_json(client))
    config = config["config"] if client.protocol == "grpc" else config
    assert config["name"] == "add_sub"
    assert config["max_batch_size"] == 8
    assert [(i["name"], i["data_type"], [int(d) for d in i["dims"]]) for i in config["input"]] == [
        ("a", "TYPE_FP32", [4]),
        ("b", "TYPE_FP32", [4]),
    ]
    assert [o["name"] for o in config["output"]] == ["sum", "difference"]
    assert "dynamic_batching" in config
    assert "sequence_batching" not in config and "ensemble_scheduling" not in config


def test_the_configuration_over_http_spells_numbers_as_numbers_and_prints_defaults(
    http_client: Any,
) -> None:
    config = http_client.get_model_config("identity_bytes")
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    assert config["input"][0]["dims"] == [-1]
    assert config["input"][0]["optional"] is False
    assert config["model_transaction_policy"] == {"decoupled": False}


def test_a_model_that_does_not_batch_has_no_batching_in_its_configuration(http_client: Any) -> None:
    config = http_client.get_model_config("transpose")
    assert config["max_batch_size"] == 0
    assert config["input"][0]["dims"] == [2, 3]
    assert "dynamic_batching" not in config


def test_models_and_versions_are_ready_one_by_one(client: Any) -> None:
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "3")
    assert not client.is_model_ready("nobody")


def test_readiness_over_http_has_a_body_and_an_unknown_model_is_404(gateway: Gateway) -> None:
    ready = wire.request(gateway.http, "GET", "/v2/models/digits/versions/2/ready")
    assert (ready.status, ready.json()) == (200, {"name": "digits", "ready": True})
    assert wire.request(gateway.http, "GET", "/v2/models/nobody/ready").status == 404


@pytest.mark.parametrize("what", ["metadata", "config"])
def test_unknown_models_and_versions_are_not_found(client: Any, what: str) -> None:
    get = getattr(client, f"get_model_{what}")
    for name, version in [("nobody", ""), ("digits", "9"), ("digits", "3"), ("digits", "one")]:
        status, text = refusal(lambda: get(name, version))
        assert status in NOT_FOUND, text
    assert "Request for unknown model: 'nobody' is not found" in refusal(lambda: get("nobody"))[1]


def test_the_index_lists_every_model_with_version_and_state(client: Any) -> None:
    index = client.get_model_repository_index(**as_json(client))
    entries = index["models"] if client.protocol == "grpc" else index
    assert isinstance(entries, list)
    found = {(entry["name"], entry.get("version", "")): entry for entry in entries}
    for name, version in [("digits", "1"), ("digits", "2"), ("times", "2"), ("identity_bf16", "1")]:
        assert found[name, version]["state"] == "READY"
        assert not found[name, version].get("reason")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": true}'])
def test_the_index_takes_any_body_and_answers_a_list(gateway: Gateway, body: bytes) -> None:
    answer = wire.request(gateway.http, "POST", "/v2/repository/index", body)
    assert answer.status == 200
    assert {entry["state"] for entry in answer.json()} == {"READY"}
    assert all("reason" not in entry for entry in answer.json())


def test_the_list_of_models_names_each_once(gateway: Gateway) -> None:
    models = wire.request(gateway.http, "GET", "/v2/models").json()["models"]
    assert len(models) == len(set(models))
    assert {"digits", "digits_cnn", "add_sub", "identity_bytes"} <= set(models)


def test_the_root_answers_with_and_without_a_slash(gateway: Gateway) -> None:
    for target in ("/v2", "/v2/"):
        assert wire.request(gateway.http, "GET", target).json()["name"] == "penstock"


def test_the_start_up_summary_says_what_is_served(gateway: Gateway) -> None:
    served = {(model["name"], model["version"]) for model in gateway.summary["models"]}
    assert {("digits", 1), ("digits", 2), ("digits_cnn", 1)} <= served
    assert gateway.summary["libtorch"]


def test_metrics_have_the_names_that_existing_dashboards_read(gateway: Gateway) -> None:
    answer = wire.request(gateway.metrics, "GET", "/metrics")
    assert answer.status == 200
    text = answer.body.decode()
    for name in (
        "nv_inference_request_success", "nv_inference_request_failure", "nv_inference_count",
        "nv_inference_exec_count", "nv_inference_request_duration_us",
        "nv_inference_queue_duration_us", "nv_inference_compute_infer_duration_us",
    ):  # fmt: skip
        assert f"\n{name}{{" in text, name
    assert wire.request(gateway.metrics, "POST", "/metrics").status == 405
    assert wire.request(gateway.metrics, "GET", "/v2/models/digits/ready").status == 404
