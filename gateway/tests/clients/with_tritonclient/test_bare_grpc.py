"""Bare gRPC: messages that no client library makes, and the services beside inference."""

from __future__ import annotations

import struct
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from harness import Gateway

SERVICE = "inference.GRPCInferenceService"
ROW = struct.pack("<3f", 1, 2, 3)
Status = grpc.StatusCode


def request(
    model: str = "identity_fp32", datatype: str = "FP32", shape: tuple[int, ...] = (1, 3),
    raw: list[bytes] | None = None, **contents: Any,
) -> pb.ModelInferRequest:  # fmt: skip
    """A request with one input, raw or typed."""
    message = pb.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="x", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(tensor.contents, field).extend(values)
    message.raw_input_contents.extend(raw or [])
    return message


@pytest.fixture(scope="session")
def stub(channel: grpc.Channel) -> Any:
    """The generated stub."""
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def code(call: Any, *arguments: Any, **options: Any) -> tuple[grpc.StatusCode, str]:
    """Status and text of a call."""
    try:
        call(*arguments, **options)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return Status.OK, ""


def refused(stub: Any, message: pb.ModelInferRequest, *words: str) -> None:
    """The request is INVALID_ARGUMENT, in these words, and the next one is answered."""
    found, text = code(stub.ModelInfer, message)
    assert found == Status.INVALID_ARGUMENT, text
    for word in words:
        assert word in text
    assert stub.ModelInfer(request(raw=[ROW])).raw_output_contents == [ROW]


# Contents


def test_every_output_has_its_raw_contents_even_for_typed_input(stub: Any) -> None:
    """What clients read: one entry per output, in order."""
    message = pb.ModelInferRequest(model_name="add_sub")
    for name in ("a", "b"):
        tensor = message.inputs.add(name=name, datatype="FP32", shape=[1, 4])
        tensor.contents.fp32_contents.extend([1, 2, 3, 4])
    answer = stub.ModelInfer(message)
    assert [output.name for output in answer.outputs] == ["sum", "difference"]
    assert answer.raw_output_contents == [struct.pack("<4f", 2, 4, 6, 8), bytes(16)]
    assert not any(output.HasField("contents") for output in answer.outputs)


TYPED = [
    ("BOOL", "bool_contents", [True, False], "<2?"), ("INT8", "int_contents", [-128, 127], "<2b"),
    ("INT16", "int_contents", [-(2**15), 1], "<2h"), ("INT32", "int_contents", [-(2**31), 1], "<2i"),
    ("INT64", "int64_contents", [-(2**63), 2**53 + 1], "<2q"), ("UINT8", "uint_contents", [0, 255], "<2B"),
    ("UINT16", "uint_contents", [0, 65535], "<2H"), ("UINT32", "uint_contents", [0, 2**32 - 1], "<2I"),
    ("UINT64", "uint64_contents", [2**64 - 1, 2**53 + 1], "<2Q"),
    ("FP32", "fp32_contents", [1.5, -2.5], "<2f"), ("FP64", "fp64_contents", [1e300, -2.5], "<2d"),
]  # fmt: skip


@pytest.mark.parametrize(("datatype", "field", "values", "packed"), TYPED)
def test_typed_contents_of_every_datatype(
    stub: Any, datatype: str, field: str, values: list[Any], packed: str
) -> None:
    message = request(f"identity_{datatype.lower()}", datatype, (1, 2), **{field: values})
    assert stub.ModelInfer(message).raw_output_contents == [struct.pack(packed, *values)]


def test_typed_bytes(stub: Any) -> None:
    message = request("identity_bytes", "BYTES", (1, 2), bytes_contents=[b"\xff", b""])
    assert stub.ModelInfer(message).raw_output_contents == [b"\1\0\0\0\xff\0\0\0\0"]


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_has_no_typed_contents(stub: Any, datatype: str) -> None:
    message = request(f"identity_{datatype.lower()}", datatype, (1, 1), fp32_contents=[1.0])
    refused(stub, message, "raw_input_contents")


def test_wrong_contents_are_refused(stub: Any) -> None:
    refused(stub, request(raw=[ROW], fp32_contents=[1, 2, 3]), "'x'")
    refused(stub, request(raw=[ROW, ROW]))
    refused(stub, request(raw=[ROW[:-1]]), "'x'")
    refused(stub, request(raw=[ROW + b"\0"]), "'x'")
    refused(stub, request())
    refused(stub, request(fp32_contents=[1, 2]))
    refused(stub, request(int_contents=[1, 2, 3]), "fp32_contents")
    refused(stub, request(fp32_contents=[1, 2, 3], int_contents=[1]))
    refused(stub, request("identity_int8", "INT8", (1, 1), int_contents=[128]), "128")
    refused(stub, request("identity_uint8", "UINT8", (1, 1), uint_contents=[256]), "256")
    refused(stub, request(datatype="TYPE_FP32", raw=[ROW]))
    refused(stub, request("identity_bool", "BOOL", (1, 2), raw=[b"\0\2"]))


@pytest.mark.parametrize(
    "shape", [(-1, 3), (1, -3), (3,), (1, 3, 1), (), (2**62, 64), (2**63 - 1, 2), (3, 0)]
)
def test_shapes_that_do_not_fit_are_refused(stub: Any, shape: tuple[int, ...]) -> None:
    """Trap 27, and the product that overflows."""
    refused(stub, request(shape=shape, raw=[ROW]))


def test_an_error_is_short_enough_for_a_trailer(stub: Any) -> None:
    """gRPC carries the text in a header, which clients bound to 8 KiB."""
    refused(stub, request(shape=(10**17,) * 64, raw=[ROW]), "'x'")
    refused(stub, request(shape=(1,) * 30_000, raw=[ROW]), "shape")
    refused(stub, request("identity_fp32", "F" * 100_000, raw=[ROW]))
    unknown = request("m" * 100_000, raw=[ROW])
    assert code(stub.ModelInfer, unknown)[0] == Status.NOT_FOUND


@pytest.mark.parametrize(
    "blob", [b"\x05\0\0\0abc", b"\1\0\0\0a\2", b"\xff\xff\xff\xff", b"\0\0\0\0", b"abc", b""]
)
def test_malformed_bytes_are_refused(stub: Any, blob: bytes) -> None:
    refused(stub, request("identity_bytes", "BYTES", (1, 2), raw=[blob]), "'x'")


def test_parameters_may_be_of_any_type(stub: Any) -> None:
    """Trap 17: `priority` as int64 or uint64; `timeout` likewise."""
    for field in ("int64_param", "uint64_param"):
        message = request(raw=[ROW])
        for key in ("priority", "timeout"):
            setattr(message.parameters[key], field, 2_000_000)
        message.parameters["note"].string_param = "x"
        message.parameters["share"].double_param = 0.5
        answer = stub.ModelInfer(message)
        assert answer.raw_output_contents == [ROW]
        # kserve's messages know only bool, int64 and string.
        for value in answer.parameters.values():
            assert value.WhichOneof("parameter_choice") in (
                "bool_param",
                "int64_param",
                "string_param",
            )


def test_reserved_parameters_are_refused_but_for_the_one_that_clients_send(stub: Any) -> None:
    """Trap 18: the C++ client always sends triton_enable_empty_final_response."""
    message = request(raw=[ROW])
    message.parameters["triton_enable_empty_final_response"].bool_param = True
    assert stub.ModelInfer(message).raw_output_contents == [ROW]
    message.parameters["triton_secret"].bool_param = True
    refused(stub, message, "triton_secret")


def test_metadata_of_other_systems_is_let_be(stub: Any) -> None:
    """Trap 30."""
    metadata = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("ce-id", "1"),
    ]
    assert stub.ModelInfer(request(raw=[ROW]), metadata=metadata).raw_output_contents == [ROW]


# Repository messages of the other dialect


def field(number: int, value: bytes) -> bytes:
    """A length-delimited protobuf field."""
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def bare(channel: grpc.Channel, method: str, service: str = SERVICE) -> Any:
    """A call whose messages are bytes."""
    return channel.unary_unary(f"/{service}/{method}", lambda raw: raw, lambda raw: raw)


def test_kserve_s_load_and_unload_have_the_name_in_another_field(start_gateway: Any) -> None:
    """Trap 13: model_name is field 1 there; the answer has model_name = 1 and isLoaded = 2."""
    small = start_gateway("", "times")
    with grpc.insecure_channel(small.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        ready = pb.ModelReadyRequest(name="times")
        expected = field(1, b"times") + bytes([2 << 3, 1])
        assert bare(channel, "RepositoryModelUnload")(field(1, b"times")) == expected
        assert not stub.ModelReady(ready).ready
        assert bare(channel, "RepositoryModelLoad")(field(1, b"times")) == expected
        assert stub.ModelReady(ready).ready
        # The other dialect still works, and naming both is no model of ours.
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="times"))
        both = pb.RepositoryModelLoadRequest(repository_name="main", model_name="times")
        assert code(stub.RepositoryModelLoad, both)[0] == Status.UNIMPLEMENTED
        neither = pb.RepositoryModelLoadRequest()
        assert code(stub.RepositoryModelLoad, neither)[0] == Status.INVALID_ARGUMENT
        elsewhere = pb.RepositoryIndexRequest(repository_name="main")
        assert code(stub.RepositoryIndex, elsewhere)[0] == Status.UNIMPLEMENTED


# Transport


def test_unknown_methods_and_services_are_unimplemented(channel: grpc.Channel) -> None:
    for method, service in [("ModelDream", SERVICE), ("ModelInfer", "inference.Other"), ("", "x")]:
        assert code(bare(channel, method, service), b"")[0] == Status.UNIMPLEMENTED


def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel, stub: Any) -> None:
    for rubbish in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x02\xff\xfe"):
        status, text = code(bare(channel, "ModelInfer"), rubbish)
        assert status == Status.INVALID_ARGUMENT, text
    assert stub.ModelInfer(request(raw=[ROW])).raw_output_contents == [ROW]


def test_an_empty_message_is_an_unknown_model(channel: grpc.Channel) -> None:
    assert code(bare(channel, "ModelInfer"), b"")[0] == Status.NOT_FOUND


def test_a_deadline_that_passed_is_kept_on_the_client_and_the_gateway_goes_on(stub: Any) -> None:
    slow = pb.ModelInferRequest(model_name="slow")
    slow.inputs.add(name="loops", datatype="INT64", shape=[1, 1])
    slow.raw_input_contents.append(struct.pack("<q", 5_000_000))
    assert code(stub.ModelInfer, slow, timeout=0.05)[0] == Status.DEADLINE_EXCEEDED
    assert stub.ModelInfer(request(raw=[ROW])).raw_output_contents == [ROW]


# Health and reflection


@pytest.fixture(scope="session")
def health(channel: grpc.Channel) -> Any:
    """The stub of grpc.health.v1."""
    return health_pb2_grpc.HealthStub(channel)


SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("name", ["", SERVICE, "digits", "identity_fp32"])
def test_health_of_the_server_and_of_each_model(health: Any, name: str) -> None:
    assert health.Check(health_pb2.HealthCheckRequest(service=name)).status == SERVING


def test_health_of_an_unknown_service_is_not_found(health: Any) -> None:
    check = health_pb2.HealthCheckRequest(service="nobody")
    assert code(health.Check, check)[0] == Status.NOT_FOUND


def test_watching_tells_at_once_and_at_every_change(start_gateway: Any) -> None:
    small = start_gateway("", "times")
    with grpc.insecure_channel(small.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        watched = health.Watch(health_pb2.HealthCheckRequest(service="times"), timeout=30)
        assert next(watched).status == SERVING
        stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="times"))
        assert next(watched).status != SERVING
        stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="times"))
        statuses = (message.status for message in watched)
        assert SERVING in statuses
        watched.cancel()
        unknown = health.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=30)
        assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        unknown.cancel()


def test_reflection_tells_every_service_and_message(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert {SERVICE, "grpc.health.v1.Health"} <= set(database.get_services())
    service = DescriptorPool(database).FindServiceByName(SERVICE)
    assert len(service.methods) == 20
    infer = service.methods_by_name["ModelStreamInfer"]
    assert infer.client_streaming and infer.server_streaming
    # Trap 14: a stream answers with its own message, not with a plain answer.
    assert infer.output_type.full_name == "inference.ModelStreamInferResponse"


def test_server_metadata_is_the_same_on_both_protocols(stub: Any, http_client: Any) -> None:
    over_http = http_client.get_server_metadata()
    over_grpc = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert over_grpc.name == over_http["name"] and over_grpc.version == over_http["version"]
    assert list(over_grpc.extensions) == over_http["extensions"]


def test_readiness_of_an_unknown_model_is_no_error(stub: Any, gateway: Gateway) -> None:
    assert stub.ModelReady(pb.ModelReadyRequest(name="nobody")).ready is False
