"""gzip and deflate, in both directions, and where they must not be."""

from __future__ import annotations

import gzip
import json
import zlib

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient

import wire
from calls import Caller, grpc_inputs
from harness import Gateway

# Compresses well and is large enough to be worth it.
X = np.tile(np.arange(50, dtype=np.float32), (8, 20))


@pytest.mark.parametrize("out", [None, "gzip", "deflate"], ids=lambda c: f"answer-{c}")
@pytest.mark.parametrize("sent", [None, "gzip", "deflate"], ids=lambda c: f"request-{c}")
def test_compressed_calls_are_answered(
    http_caller: Caller, sent: str | None, out: str | None
) -> None:
    """Trap 7: the asyncio client inflates by itself, from these two codings only."""
    for binary in (True, False):
        answer = http_caller.infer(
            "identity_fp32", {"x": X}, outputs=["y"], compress=sent, compress_answer=out,
            binary_in=binary, binary_out=binary,
        )  # fmt: skip
        np.testing.assert_array_equal(answer["y"], X)


@pytest.mark.parametrize("sent", [None, "gzip", "deflate"])
def test_compressed_messages_are_answered(caller: Caller, sent: str | None) -> None:
    answer = caller.infer("identity_fp32", {"x": X}, compress=sent)
    np.testing.assert_array_equal(answer["y"], X)


def test_grpc_answers_go_out_plain(gateway: Gateway) -> None:
    """Every gRPC library says that it could inflate; to compress for all of them would cost more
    than the call."""
    zeros = np.zeros((8, 10_000), np.float32)
    with wire.Meter(gateway.grpc) as meter, InferenceServerClient(meter.address) as client:
        client.infer("identity_fp32", grpc_inputs({"x": zeros}))
    assert meter.received > zeros.nbytes, f"{zeros.nbytes} bytes came as {meter.received}"


def body() -> bytes:
    """A JSON request whose answer is worth compressing."""
    return json.dumps({"inputs": [wire.tensor("FP32", list(X.shape), X.tolist())]}).encode()


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"), ("deflate", "deflate"), ("gzip, deflate", "gzip"),
        ("gzip;q=0.1, deflate", "deflate"), ("br, zstd", None), ("gzip;q=0", None),
        ("identity", None), ("*", None), ("", None),
    ],
)  # fmt: skip
def test_answers_use_only_codings_that_clients_inflate(
    gateway: Gateway, accepted: str, coding: str | None
) -> None:
    """Trap 7."""
    answer = wire.infer(gateway.http, "identity_fp32", body(), {"Accept-Encoding": accepted})
    assert answer.status == 200
    assert answer.headers.get("content-encoding") == coding
    inflate = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[coding]
    assert json.loads(inflate(answer.body))["outputs"][0]["data"] == X.flatten().tolist()


def test_the_header_length_of_a_compressed_answer_is_that_of_the_inflated_json(
    gateway: Gateway,
) -> None:
    request = json.loads(body()) | {"parameters": {"binary_data_output": True}}
    answer = wire.infer(gateway.http, "identity_fp32", request, {"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    inflated = gzip.decompress(answer.body)
    length = int(answer.headers["inference-header-content-length"])
    assert json.loads(inflated[:length])["model_name"] == "identity_fp32"
    assert inflated[length:] == X.tobytes()


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v2/models/digits/config"), ("GET", "/v2/models/stats"), ("GET", "/v2/models/digits"),
        ("POST", "/v2/repository/index"), ("GET", "/v2/models/nobody"), ("GET", "/nothing"),
    ],
)  # fmt: skip
def test_nothing_but_inference_is_ever_compressed(
    gateway: Gateway, method: str, target: str
) -> None:
    """Traps 7 and 8: clients inflate neither metadata nor errors."""
    everything = {"Accept-Encoding": "gzip, deflate, br, zstd"}
    answer = wire.request(
        gateway.http, method, target, b"" if method == "POST" else None, everything
    )
    assert "content-encoding" not in answer.headers
    answer.json()


def test_a_refused_inference_is_not_compressed(gateway: Gateway) -> None:
    """Trap 8."""
    name = "n" * 5000
    request = {"inputs": [wire.tensor("FP32", [1, 1], [1.0], name)]}
    answer = wire.infer(
        gateway.http, "identity_fp32", request, {"Accept-Encoding": "gzip, deflate"}
    )
    assert answer.status == 400
    answer.error()


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip"])
def test_other_codings_of_a_request_are_unsupported(gateway: Gateway, coding: str) -> None:
    answer = wire.infer(gateway.http, "identity_fp32", body(), {"Content-Encoding": coding})
    assert answer.status == 501
    assert "gzip" in answer.error()


def test_identity_is_a_coding(gateway: Gateway) -> None:
    answer = wire.infer(gateway.http, "identity_fp32", body(), {"Content-Encoding": "identity"})
    assert answer.status == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_is_not_what_it_says_is_refused(gateway: Gateway, coding: str) -> None:
    packed = gzip.compress(body()) if coding == "gzip" else zlib.compress(body())
    for wrong in (body(), packed[:-20], b"", packed[:1]):
        answer = wire.infer(gateway.http, "identity_fp32", wrong, {"Content-Encoding": coding})
        assert answer.status == 400
        answer.error()


def test_other_posts_take_compressed_bodies_too(gateway: Gateway) -> None:
    packed = gzip.compress(b'{"ready": true}')
    answer = wire.request(
        gateway.http, "POST", "/v2/repository/index", packed, {"Content-Encoding": "gzip"}
    )
    assert answer.status == 200 and answer.json()
