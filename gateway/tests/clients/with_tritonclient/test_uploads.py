"""Load calls that bring their own model: allowed, refused, bounded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from calls import (
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    TOO_LARGE,
    UNSUPPORTED,
    grpc_inputs,
    http_inputs,
    refusal,
)
from harness import Gateway

X = np.array([[3], [4]], np.float32)
LIMIT_KIB = 64


def config(**more: Any) -> str:
    """A model configuration as Triton's clients write it."""
    tensor = {"data_type": "TYPE_FP32", "dims": [1]}
    written = {
        "backend": "pytorch",
        "max_batch_size": 8,
        "input": [{"name": "x"} | tensor],
        "output": [{"name": "y"} | tensor],
    }
    return json.dumps(written | more)


@pytest.fixture(scope="module")
def small(start_gateway: Any) -> Gateway:
    """A gateway that takes uploads, up to a limit."""
    return start_gateway(f'uploads = true\nmax_upload = "{LIMIT_KIB}KiB"\n', "times")


@pytest.fixture(params=["http", "grpc"])
def client(request: pytest.FixtureRequest, small: Gateway) -> Iterator[Any]:
    """Both blocking clients in turn; what they uploaded is unloaded."""
    module = getattr(tritonclient, request.param)
    with module.InferenceServerClient(getattr(small, request.param)) as made:
        made.protocol = request.param
        yield made
        if made.is_model_ready("fresh"):
            made.unload_model("fresh")
        made.load_model("times")


@pytest.fixture
def model(torchscript: Path) -> bytes:
    """The file of a model that doubles its input."""
    return (torchscript / "times" / "2" / "model.pt").read_bytes()


def infer(client: Any, name: str, version: str = "") -> np.ndarray:
    """Calls an uploaded model."""
    make = http_inputs if client.protocol == "http" else grpc_inputs
    return client.infer(name, make({"x": X}), model_version=version).as_numpy("y")


def test_an_uploaded_model_serves_and_leaves_no_file(
    client: Any, small: Gateway, model: bytes
) -> None:
    before = sorted(small.repository.rglob("*"))
    client.load_model("fresh", config=config(), files={"file:1/model.pt": model})
    np.testing.assert_array_equal(infer(client, "fresh"), X * 2)
    assert client.is_model_ready("fresh", "1")
    assert sorted(small.repository.rglob("*")) == before
    client.unload_model("fresh")
    assert refusal(lambda: infer(client, "fresh"))[0] in NOT_FOUND


def test_several_versions_follow_the_policy_that_came_along(client: Any, model: bytes) -> None:
    files = {"file:4/model.pt": model, "file:7/model.pt": model}
    both = config(version_policy={"specific": {"versions": [4, 7]}})
    client.load_model("fresh", config=both, files=files)
    np.testing.assert_array_equal(infer(client, "fresh", "4"), X * 2)
    np.testing.assert_array_equal(infer(client, "fresh", "7"), X * 2)
    client.load_model("fresh", config=config(), files=files)
    assert client.is_model_ready("fresh", "7") and not client.is_model_ready("fresh", "4")


def test_an_upload_may_stand_in_for_a_model_of_the_folder(client: Any, torchscript: Path) -> None:
    once = (torchscript / "times" / "1" / "model.pt").read_bytes()
    client.load_model("times", config=config(), files={"file:5/model.pt": once})
    np.testing.assert_array_equal(infer(client, "times"), X)
    client.load_model("times")
    np.testing.assert_array_equal(infer(client, "times"), X * 2)


def test_an_upload_that_does_not_load_leaves_what_served(client: Any, model: bytes) -> None:
    for broken in (model[:500], b"", b"no model at all"):
        files = {"file:2/model.pt": broken}
        status, text = refusal(lambda: client.load_model("times", config=config(), files=files))
        assert status in INVALID and "failed to load" in text
        np.testing.assert_array_equal(infer(client, "times"), X * 2)


def test_files_need_a_configuration(client: Any, model: bytes) -> None:
    status, text = refusal(lambda: client.load_model("fresh", files={"file:1/model.pt": model}))
    assert status in INVALID and "config" in text


@pytest.mark.parametrize(
    "path",
    ["file:model.pt", "file:../1/model.pt", "file:1/../../x", "file:1/other.pt", "file:0/model.pt"],
)
def test_paths_that_are_no_version_s_file_are_refused(client: Any, model: bytes, path: str) -> None:
    status, _ = refusal(lambda: client.load_model("fresh", config=config(), files={path: model}))
    assert status in INVALID


def test_what_a_configuration_cannot_change_is_refused_not_dropped(
    client: Any, model: bytes
) -> None:
    files = {"file:1/model.pt": model}
    for more in (
        {"sequence_batching": {}},
        {"ensemble_scheduling": {}},
        {"backend": "onnxruntime"},
    ):
        load = lambda: client.load_model("fresh", config=config(**more), files=files)
        assert refusal(load)[0] in UNSUPPORTED
    for wrong in ("{", "[]", '{"colour": 1}', config(input=[])):
        load = lambda: client.load_model("fresh", config=wrong, files=files)
        assert refusal(load)[0] in INVALID


def test_uploads_beyond_the_limit_are_too_large(client: Any) -> None:
    files = {"file:1/model.pt": b"x" * (LIMIT_KIB * 1024 + 1)}
    status, text = refusal(lambda: client.load_model("fresh", config=config(), files=files))
    assert status in TOO_LARGE, text


def test_the_limit_holds_for_all_files_together(client: Any) -> None:
    half = b"x" * (LIMIT_KIB * 1024 // 2 + 1)
    files = {"file:1/model.pt": half, "file:2/model.pt": half}
    assert refusal(lambda: client.load_model("fresh", config=config(), files=files))[0] in TOO_LARGE


def test_uploads_are_off_unless_switched_on(gateway: Gateway, model: bytes) -> None:
    files = {"file:1/model.pt": model}
    for protocol in ("http", "grpc"):
        module = getattr(tritonclient, protocol)
        with module.InferenceServerClient(getattr(gateway, protocol)) as client:
            status, text = refusal(lambda: client.load_model("fresh", config=config(), files=files))
            assert status in FORBIDDEN and "repository.uploads" in text
            assert not client.is_model_ready("fresh")
