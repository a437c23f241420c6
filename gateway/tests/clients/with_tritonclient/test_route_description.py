"""A route that is no model: clients find, describe and call it as they would a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from load import StartOn

MODEL, ALIAS = "identity_fp32", "anybody"
ROUTE = f"""
[[route]]
name = "{ALIAS}"
  [[route.arm]]
  name = "only"
  model = "{MODEL}"
"""
CLIENTS = {"http": tritonclient.http, "grpc": tritonclient.grpc}


@pytest.mark.parametrize("protocol", CLIENTS)
def test_a_route_without_a_model_is_found_described_and_called(
    start_on: StartOn, protocol: str
) -> None:
    """What clients ask before they call is answered under the name of the route."""
    gateway = start_on(ROUTE)
    library = CLIENTS[protocol]
    as_json: dict[str, Any] = {"as_json": True} if protocol == "grpc" else {}
    with library.InferenceServerClient(getattr(gateway, protocol)) as client:
        for version in ("", "only"):
            assert client.is_model_ready(ALIAS, version)
            metadata = client.get_model_metadata(ALIAS, version, **as_json)
            assert metadata["name"] == ALIAS
            assert metadata["versions"] == ["only"]
            config = client.get_model_config(ALIAS, version, **as_json)
            config = config.get("config", config)
            assert (config["name"], config["max_batch_size"]) == (ALIAS, 8)
        assert not client.is_model_ready(ALIAS, "nobody")
        [described] = metadata["inputs"]
        sent = np.array([[1.5, -2.0]], np.float32)
        asked = library.InferInput(described["name"], list(sent.shape), described["datatype"])
        asked.set_data_from_numpy(sent)
        answer = client.infer(ALIAS, [asked])
        np.testing.assert_array_equal(answer.as_numpy(metadata["outputs"][0]["name"]), sent)
