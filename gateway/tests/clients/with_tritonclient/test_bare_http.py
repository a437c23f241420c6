"""Bare HTTP requests: headers, lengths, bodies and paths that no client library sends."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest

import wire
from harness import Gateway

ROW = [1.0, 2.0, 3.0]
RAW = struct.pack("<3f", *ROW)
JSON_REQUEST = {"inputs": [wire.tensor("FP32", [1, 3], ROW)]}
BINARY_INPUT = {
    "name": "x",
    "datatype": "FP32",
    "shape": [1, 3],
    "parameters": {"binary_data_size": 12},
}
BINARY_REQUEST = {"inputs": [BINARY_INPUT]}


@pytest.fixture(autouse=True)
def still_answers(gateway: Gateway) -> Iterator[None]:
    """Whatever a test sent, the next caller gets its answer."""
    yield
    assert wire.infer(gateway.http, "identity_fp32", JSON_REQUEST).status == 200


def refused(answer: wire.Response, status: int, *words: str) -> None:
    """The answer is an error with this status and these words."""
    assert answer.status == status, answer
    text = answer.error()
    for word in words:
        assert word in text


def one_input(gateway: Gateway, datatype: str, shape: Any, data: Any) -> wire.Response:
    """Sends one JSON input to the identity model of its datatype."""
    model = f"identity_{datatype.lower()}"
    return wire.infer(gateway.http, model, {"inputs": [wire.tensor(datatype, shape, data)]})


# Headers

CONTENT_TYPES = [
    None, "application/json", "application/octet-stream", "text/plain", "nonsense", "",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/x-protobuf",
]  # fmt: skip


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_the_content_type_does_not_matter(gateway: Gateway, content_type: str | None) -> None:
    """Trap 1: tritonclient sends none, others send what their HTTP library makes up."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert wire.infer(gateway.http, "identity_fp32", JSON_REQUEST, headers).status == 200
    assert wire.infer(gateway.http, "identity_fp32", BINARY_REQUEST, headers, RAW).status == 200
    for target in (
        "/v2/repository/index",
        "/v2/repository/models/identity_fp32/load",
        "/v2/logging",
    ):
        assert wire.request(gateway.http, "POST", target, b"{}", headers).status == 200, target


def test_an_empty_id_is_accepted_and_not_echoed(gateway: Gateway) -> None:
    """Trap 2: the C++ client sends it."""
    answer = wire.infer(gateway.http, "identity_fp32", {"id": ""} | JSON_REQUEST)
    assert answer.status == 200 and "id" not in answer.json()
    answer = wire.infer(gateway.http, "identity_fp32", {"id": None} | JSON_REQUEST)
    assert answer.status == 200 and "id" not in answer.json()
    odd = 'a"\\\n\u2028ü'
    answer = wire.infer(gateway.http, "identity_fp32", {"id": odd} | JSON_REQUEST)
    assert answer.json()["id"] == odd


def test_liveness_answers_for_readiness(gateway: Gateway) -> None:
    """Trap 3: the C++ client asks the one and means the other. Both have a body for kserve's."""
    live = wire.request(gateway.http, "GET", "/v2/health/live")
    ready = wire.request(gateway.http, "GET", "/v2/health/ready")
    assert (live.status, live.json()) == (200, {"live": True})
    assert (ready.status, ready.json()) == (200, {"live": True, "ready": True})


def test_a_header_length_beside_pure_json_is_fine(gateway: Gateway) -> None:
    """The C++ client sends the length always."""
    text = json.dumps(JSON_REQUEST).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = wire.infer(gateway.http, "identity_fp32", text, headers)
    assert answer.json()["outputs"][0]["data"] == ROW


def test_header_names_in_any_case(gateway: Gateway) -> None:
    """Trap 9."""
    text = json.dumps(BINARY_REQUEST).encode()
    for name in ("inference-header-content-length", "INFERENCE-HEADER-CONTENT-LENGTH"):
        answer = wire.infer(gateway.http, "identity_fp32", text, {name: str(len(text))}, RAW)
        assert answer.status == 200 and answer.body.endswith(RAW)


def test_headers_of_other_systems_are_let_be(gateway: Gateway) -> None:
    """Trap 30: what travels beside a request must not break it."""
    headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
        "Ce-Id": "66",
        "Ce-Source": "logger",
        "X-Request-Id": "7",
        "Authorization": "Bearer nobody",
    }
    assert wire.infer(gateway.http, "identity_fp32", JSON_REQUEST, headers).status == 200
    broken = {"traceparent": "00-nonsense"}
    assert wire.infer(gateway.http, "identity_fp32", JSON_REQUEST, broken).status == 200


def test_query_parameters_are_let_be(gateway: Gateway) -> None:
    target = "/v2/models/identity_fp32/infer?a=b&c"
    text = json.dumps(JSON_REQUEST).encode()
    assert wire.request(gateway.http, "POST", target, text).status == 200


# Lengths


@pytest.mark.parametrize(
    "length", ["-1", "+5", "1.5", "x", "", "0x10", "99999999", "9" * 30, "1, 1", " "]
)
def test_a_header_length_that_lies_is_refused(gateway: Gateway, length: str) -> None:
    text = json.dumps(BINARY_REQUEST).encode()
    headers = {"Inference-Header-Content-Length": length}
    refused(wire.infer(gateway.http, "identity_fp32", text, headers, RAW), 400)


@pytest.mark.parametrize("off_by", [-20, -1, 1, 5])
def test_a_header_length_that_cuts_elsewhere_is_refused(gateway: Gateway, off_by: int) -> None:
    text = json.dumps(BINARY_REQUEST).encode()
    headers = {"Inference-Header-Content-Length": str(len(text) + off_by)}
    refused(wire.infer(gateway.http, "identity_fp32", text, headers, RAW), 400)


def test_truncated_and_surplus_blobs_are_refused(gateway: Gateway) -> None:
    refused(wire.infer(gateway.http, "identity_fp32", BINARY_REQUEST, blobs=RAW[:-1]), 400, "'x'")
    refused(
        wire.infer(gateway.http, "identity_fp32", BINARY_REQUEST, blobs=RAW + b"\0"),
        400, "unexpected additional input data",
    )  # fmt: skip
    refused(wire.infer(gateway.http, "identity_fp32", JSON_REQUEST, blobs=RAW), 400)


@pytest.mark.parametrize("size", [0, 8, 11, 13, 2**40, 2**64, -1, 1.5, "12", None, True])
def test_a_binary_size_that_does_not_fit_is_refused(gateway: Gateway, size: object) -> None:
    wrong = BINARY_INPUT | {"parameters": {"binary_data_size": size}}
    refused(wire.infer(gateway.http, "identity_fp32", {"inputs": [wrong]}, blobs=RAW), 400)


def test_data_and_a_blob_for_one_input_are_refused(gateway: Gateway) -> None:
    both = BINARY_INPUT | {"data": ROW}
    refused(wire.infer(gateway.http, "identity_fp32", {"inputs": [both]}, blobs=RAW), 400, "both")
    neither = {"name": "x", "datatype": "FP32", "shape": [1, 3]}
    refused(wire.infer(gateway.http, "identity_fp32", {"inputs": [neither]}), 400, "neither")


def test_blobs_follow_in_the_order_of_the_inputs_that_have_one(gateway: Gateway) -> None:
    a = {"name": "a", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    b = wire.tensor("FP32", [1, 4], [1, 1, 1, 1], "b")
    for inputs in ([a, b], [b, a]):
        body = {"inputs": inputs, "outputs": [{"name": "sum"}]}
        answer = wire.infer(gateway.http, "add_sub", body, blobs=struct.pack("<4f", 1, 2, 3, 4))
        assert answer.json()["outputs"][0]["data"] == [2, 3, 4, 5]


def raw_request(gateway: Gateway, model: str, body: bytes) -> wire.Response:
    """The raw binary form: no JSON, the body is the tensor."""
    headers = {"Inference-Header-Content-Length": "0"}
    return wire.infer(gateway.http, model, body, headers)


def test_a_raw_binary_request_is_one_item_and_answered_in_binary(gateway: Gateway) -> None:
    pixels = struct.pack("<64f", *range(64))
    answer = raw_request(gateway, "digits", pixels)
    assert answer.status == 200
    length = int(answer.headers["inference-header-content-length"])
    head = json.loads(answer.body[:length])
    assert head["outputs"][0]["shape"] == [1, 10] and len(answer.body) - length == 40
    answer = raw_request(gateway, "identity_fp32", RAW)
    assert answer.body.endswith(RAW)


def test_raw_binary_requests_that_cannot_be_one_tensor_are_refused(gateway: Gateway) -> None:
    refused(raw_request(gateway, "digits", b"\0" * 255), 400)
    refused(raw_request(gateway, "digits", b"\0" * 512), 400)
    refused(raw_request(gateway, "identity_fp32", b"\0" * 7), 400)
    refused(raw_request(gateway, "add_sub", b"\0" * 16), 400)
    refused(raw_request(gateway, "masked_sum", b""), 400)


# JSON


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b"7", b'"x"', b"{}", b'{"inputs":{}}', b'{"inputs":null}',
        b'{"inputs":[7]}', b'{"inputs":[{}]}', b'{"inputs":[]}', b"\xff\xfe{}", b"\xef\xbb\xbf{}",
        b'{"inputs":[]} more', b'{"inputs":[],"inputs":[]}', b'{"inputs":[],"outputs":7}',
        b'{"id":7,"inputs":[]}', b'{"parameters":[],"inputs":[]}', b"\0" * 100,
    ],
)  # fmt: skip
def test_bodies_that_are_no_request_are_refused(gateway: Gateway, body: bytes) -> None:
    refused(wire.infer(gateway.http, "identity_fp32", body), 400)


@pytest.mark.parametrize("inner", ["data", "parameters", "whole", "config", "unknown"])
def test_json_of_a_hundred_thousand_levels_is_refused(gateway: Gateway, inner: str) -> None:
    """Members that nobody reads are skipped, however deep."""
    depth = 100_000
    deep = "[" * depth + "]" * depth
    objects = '{"a":' * depth + "1" + "}" * depth
    target = "/v2/models/identity_fp32/infer"
    good = '"name":"x","datatype":"FP32","shape":[1,3]'
    text = {
        "data": f'{{"inputs":[{{{good},"data":{deep}}}]}}',
        "parameters": f'{{"parameters":{objects},"inputs":[{{{good},"data":[1,2,3]}}]}}',
        "unknown": f'{{"model_name":{objects},"inputs":[{{{good},"data":[1,2,3]}}]}}',
        "whole": deep,
        "config": f'{{"parameters":{{"config":{json.dumps(deep)},"file:1/model.pt":""}}}}',
    }[inner]
    if inner == "config":
        target = "/v2/repository/models/fresh/load"
    answer = wire.request(gateway.http, "POST", target, text.encode())
    if inner == "unknown":
        assert answer.json()["outputs"][0]["data"] == [1, 2, 3]
    else:
        refused(answer, 400)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "nan", "inf", "1e999"])
def test_what_json_cannot_hold_is_refused_with_a_hint(gateway: Gateway, value: str) -> None:
    """Trap 24."""
    for datatype in ("FP32", "FP64"):
        text = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[1,2],"data":[1,{value}]}}]}}'
        answer = wire.infer(gateway.http, f"identity_{datatype.lower()}", text.encode())
        refused(answer, 400)
        if value in ("NaN", "Infinity", "-Infinity"):
            assert "binary" in answer.error()


def test_64_bit_integers_are_exact(gateway: Gateway) -> None:
    """Trap 23."""
    for datatype, values in {
        "UINT64": [2**53 + 1, 2**64 - 1, 0],
        "INT64": [2**53 + 1, -(2**53) - 1, -(2**63)],
    }.items():
        answer = one_input(gateway, datatype, [1, 3], values)
        assert answer.json()["outputs"][0]["data"] == values


@pytest.mark.parametrize(
    ("datatype", "value"),
    [
        ("UINT64", 2**64), ("UINT64", -1), ("INT64", 2**63), ("UINT8", 256), ("INT8", -129),
        ("INT32", 1.5), ("INT32", "1"), ("INT32", None), ("INT32", True), ("BOOL", 1), ("BOOL", "true"),
        ("FP32", "1.0"), ("FP32", True), ("FP32", 1e39), ("FP16", 70000), ("BYTES", 7), ("BYTES", None),
        ("FP32", {}),
    ],
)  # fmt: skip
def test_values_of_another_type_or_range_are_refused(
    gateway: Gateway, datatype: str, value: object
) -> None:
    refused(one_input(gateway, datatype, [1, 1], [value]), 400, "'x'")


@pytest.mark.parametrize(
    "shape",
    [
        [-1, 3], [1, -3], [1.5, 2], ["1", 3], None, 3, [], [3], [1, 3, 1], [1, 2], [1, 4], [3, 0],
        [2**62, 64], [2**63, 3], [2**64, 3], [1] * 1000,
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(gateway: Gateway, shape: object) -> None:
    """Trap 27: dimensions are whole numbers from 0 on."""
    refused(one_input(gateway, "FP32", shape, ROW), 400)


@pytest.mark.parametrize("datatype", ["F32", "fp32", "TYPE_FP32", "STRING", "", "FP8", None, 7])
def test_datatypes_that_are_none_are_refused(gateway: Gateway, datatype: object) -> None:
    body = {"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 3], "data": ROW}]}
    refused(wire.infer(gateway.http, "identity_fp32", body), 400)


@pytest.mark.parametrize(
    "data", [[[1.0, 2.0], [3.0]], [[[1.0, 2.0, 3.0]]], [1.0, [2.0, 3.0]], [[1.0], [2.0], [3.0]], {}, "x", 1]
)  # fmt: skip
def test_data_nested_unlike_its_shape_is_refused(gateway: Gateway, data: object) -> None:
    refused(one_input(gateway, "FP32", [1, 3], data), 400)


def test_data_may_be_flat_or_nested_as_its_shape(gateway: Gateway) -> None:
    for data in ([1, 2, 3, 4], [[1, 2], [3, 4]]):
        assert one_input(gateway, "FP32", [2, 2], data).json()["outputs"][0]["data"] == [1, 2, 3, 4]


def test_members_that_nobody_knows_are_let_be(gateway: Gateway) -> None:
    """kserve's client adds model_name."""
    body = {"model_name": "other", "colour": [1, {"a": None}]} | JSON_REQUEST
    assert wire.infer(gateway.http, "identity_fp32", body).status == 200


@pytest.mark.parametrize(
    "blob",
    [
        b"\x05\0\0\0abc", b"\x01\0\0\0a\x02", b"\xff\xff\xff\xffabc", b"\x01\0\0\0ab", b"\0\0\0\0",
        b"\0\0\0\0\0\0\0\0\0\0\0\0", b"abc", b"",
    ],
)  # fmt: skip
def test_malformed_bytes_are_refused(gateway: Gateway, blob: bytes) -> None:
    """Two elements are announced; each blob has another number, overruns, or ends early."""
    tensor = {"name": "x", "datatype": "BYTES", "shape": [1, 2]}
    tensor["parameters"] = {"binary_data_size": len(blob)}  # type: ignore[assignment]
    text = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    refused(wire.infer(gateway.http, "identity_bytes", text, headers, blob), 400, "'x'")


@pytest.mark.parametrize("text", [rb'"\ud800"', rb'"\x"', b'"\xff"', rb'"\u12"'])
def test_text_that_is_no_unicode_is_refused(gateway: Gateway, text: bytes) -> None:
    """Trap 25."""
    head = b'{"inputs":[{"name":"x","datatype":"BYTES","shape":[1,1],"data":['
    refused(wire.infer(gateway.http, "identity_bytes", head + text + b"]}]}"), 400)


def test_a_boolean_byte_is_zero_or_one(gateway: Gateway) -> None:
    tensor = {
        "name": "x",
        "datatype": "BOOL",
        "shape": [1, 2],
        "parameters": {"binary_data_size": 2},
    }
    refused(wire.infer(gateway.http, "identity_bool", {"inputs": [tensor]}, blobs=b"\1\2"), 400)


def test_an_error_does_not_send_back_a_megabyte(gateway: Gateway) -> None:
    for body in (
        {"inputs": [wire.tensor("FP32", [1, 3], ROW, "n" * 1_000_000)]},
        {"inputs": [wire.tensor("F" * 1_000_000, [1, 3], ROW)]},
        {"inputs": [wire.tensor("BYTES", [1, 3], ["y" * 1_000_000] * 2)]},
        {"inputs": [wire.tensor("FP32", [1] * 300_000, ROW)]},
        JSON_REQUEST | {"outputs": [{"name": "o" * 1_000_000}]},
        JSON_REQUEST | {"parameters": {"triton_" + "p" * 1_000_000: 1}},
    ):
        answer = wire.infer(gateway.http, "identity_fp32", body)
        assert answer.status == 400 and len(answer.body) < 2000, len(answer.body)


# Paths and verbs


@pytest.mark.parametrize(
    "name",
    [
        "a%2Fb",
        "..",
        ".",
        "..%2F..%2Fetc",
        "%2e%2e",
        "a%00b",
        "%ff",
        "a%20b",
        "digits%2F",
        "*",
        "%",
        "",
    ],
)
def test_names_that_no_model_has_are_not_found(gateway: Gateway, name: str) -> None:
    """Trap 6."""
    text = json.dumps(JSON_REQUEST).encode()
    answer = wire.request(gateway.http, "POST", f"/v2/models/{name}/infer", text)
    assert answer.status in (400, 404)
    answer.error()
    load = wire.request(gateway.http, "POST", f"/v2/repository/models/{name}/load", b"")
    assert load.status in (400, 404)
    load.error()


def test_an_encoded_name_is_decoded_once(gateway: Gateway) -> None:
    assert wire.infer(gateway.http, "identity%5Ffp32", JSON_REQUEST).status == 200
    refused(wire.infer(gateway.http, "identity%255Ffp32", JSON_REQUEST), 404)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v2/models/digits/infer"), ("PUT", "/v2/models/digits/infer"),
        ("DELETE", "/v2/models/digits"), ("POST", "/v2"), ("POST", "/v2/health/live"),
        ("POST", "/v2/models/digits/config"), ("GET", "/v2/repository/index"),
        ("GET", "/v2/repository/models/digits/load"), ("DELETE", "/v2/logging"),
        ("OPTIONS", "/v2/models/digits/infer"), ("PATCH", "/v2/models/stats"),
    ],
)  # fmt: skip
def test_a_wrong_verb_is_405(gateway: Gateway, method: str, target: str) -> None:
    body = None if method == "GET" else b"{}"
    refused(wire.request(gateway.http, method, target, body), 405, "Method Not Allowed")


@pytest.mark.parametrize(
    "target",
    ["/", "/v1/models", "/v3", "/v2/nothing", "/v2/models/digits/nothing", "/metrics",
     "/v2/models/digits/infer/", "/v2/models/digits/generate", "/v2/models/digits/generate_stream", "//v2", "/v2/../v2/nothing"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_404(gateway: Gateway, method: str, target: str) -> None:
    body = b"{}" if method == "POST" else None
    refused(wire.request(gateway.http, method, target, body), 404)


def test_an_empty_version_means_none_is_given_in_a_path_too(gateway: Gateway) -> None:
    """Trap 19."""
    text = json.dumps(JSON_REQUEST).encode()
    target = "/v2/models/identity_fp32/versions//infer"
    assert wire.request(gateway.http, "POST", target, text).json()["model_version"] == "1"


def test_an_unknown_model_is_404_with_the_phrase_that_programs_look_for(gateway: Gateway) -> None:
    """Trap 21."""
    answer = wire.infer(gateway.http, "nobody", JSON_REQUEST)
    refused(answer, 404, "Request for unknown model: 'nobody' is not found")


def test_stats_is_not_taken_for_a_model(gateway: Gateway) -> None:
    assert "model_stats" in wire.request(gateway.http, "GET", "/v2/models/stats").json()


def test_head_of_a_page_has_no_body(gateway: Gateway) -> None:
    answer = wire.request(gateway.http, "HEAD", "/v2/health/ready")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    "head",
    [
        b"NONSENSE\r\n\r\n", b"GET /v2 HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"GET /v2 HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
        b"Content-Length: 6\r\n\r\n{}",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % i for i in range(500)) + b"\r\n",
        b"GET /v2 HTTP/1.1\r\nbroken header\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_request_is_refused_and_the_connection_closed(
    gateway: Gateway, head: bytes
) -> None:
    with wire.connect(gateway.http) as connection:
        connection.sendall(head)
        received = wire.read_until_closed(connection)
    if received:
        status = int(received.split()[1])
        assert 400 <= status < 500, received[:100]


def test_a_caller_that_asks_before_it_sends_is_told_to_go_on(gateway: Gateway) -> None:
    """libcurl does so for bodies of a megabyte and more."""
    text = json.dumps(JSON_REQUEST).encode()
    head = f"POST /v2/models/identity_fp32/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(text)}\r\n"
    with wire.connect(gateway.http) as connection:
        connection.sendall(head.encode() + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 Continue\r\n")
        connection.sendall(text)
        assert wire.read_until_closed(connection).startswith(b"HTTP/1.1 200 OK\r\n")


def test_http_1_0_is_answered(gateway: Gateway) -> None:
    with wire.connect(gateway.http) as connection:
        connection.sendall(b"GET /v2/health/ready HTTP/1.0\r\n\r\n")
        received = wire.read_until_closed(connection)
    assert received.startswith(b"HTTP/1.0 200 OK") or received.startswith(b"HTTP/1.1 200 OK")


def test_requests_may_be_pipelined_and_connections_kept(gateway: Gateway) -> None:
    one = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    last = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with wire.connect(gateway.http) as connection:
        connection.sendall(one * 3 + last)
        received = wire.read_until_closed(connection)
    assert received.count(b"HTTP/1.1 200 OK") == 4


def test_a_caller_that_leaves_in_the_middle_harms_nobody(gateway: Gateway) -> None:
    for part in (
        b"POST",
        b"POST /v2/models/digits/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{",
    ):
        with wire.connect(gateway.http) as connection:
            connection.sendall(part)
