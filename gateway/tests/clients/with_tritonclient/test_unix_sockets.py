"""Both protocols over Unix domain sockets, beside the ports."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc

import wire
from harness import Gateway


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sockets")


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, folder: Path) -> Gateway:
    """Started where a dead gateway left a socket file behind."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "http"))
    return start_gateway(
        f'[listen]\nhttp_socket = "{folder}/http"\ngrpc_socket = "{folder}/grpc"\n', "times"
    )


def post(path: Path, body: dict[str, Any]) -> dict[str, Any]:
    """A prediction over HTTP through a socket file."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    try:
        connection.request("POST", "/v2/models/times/infer", json.dumps(body))
        answer = connection.getresponse()
        assert answer.status == 200
        return json.loads(answer.read())
    finally:
        connection.close()


def test_http_answers_on_the_socket_as_on_the_port(gateway: Gateway, folder: Path) -> None:
    body = {"inputs": [wire.tensor("FP32", [2, 1], [1.0, 2.0])]}
    answer = post(folder / "http", body)
    other = wire.infer(gateway.http, "times", body).json()
    # Each answer has a name of its own.
    assert answer.pop("parameters") != other.pop("parameters")
    assert answer == other
    assert answer["outputs"][0]["data"] == [2.0, 4.0]


def test_tritonclient_calls_over_the_socket(gateway: Gateway, folder: Path) -> None:
    x = np.array([[1], [2]], np.float32)
    tensor = tritonclient.grpc.InferInput("x", [2, 1], "FP32")
    tensor.set_data_from_numpy(x)
    # By itself grpc-python names the server by its escaped path, which no HTTP/2 library of Rust
    # takes for an authority.
    authority = [("grpc.default_authority", "localhost")]
    with tritonclient.grpc.InferenceServerClient(
        f"unix:{folder}/grpc", channel_args=authority
    ) as client:
        assert client.is_server_ready()
        answer = client.infer("times", [tensor])
    np.testing.assert_array_equal(answer.as_numpy("y"), x * 2)


def test_socket_files_go_with_the_gateway(start_gateway: Any, tmp_path: Path) -> None:
    settings = f'[listen]\nhttp_socket = "{tmp_path}/http"\n'
    gateway: Gateway = start_gateway(settings, "times")
    assert (tmp_path / "http").is_socket()
    gateway.stop()
    assert not (tmp_path / "http").exists()


def test_a_file_that_is_no_socket_is_left_alone(start_gateway: Any, tmp_path: Path) -> None:
    (tmp_path / "http").write_text("mine")
    with pytest.raises(AssertionError):
        start_gateway(f'[listen]\nhttp_socket = "{tmp_path}/http"\n', "times")
    assert (tmp_path / "http").read_text() == "mine"
