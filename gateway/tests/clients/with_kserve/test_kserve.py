"""kserve's REST and gRPC inference clients, unmodified; a process of its own, since its protobuf
symbols are those of tritonclient."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.infer_type import RequestedOutput

import tokens
from harness import Gateway

T = TypeVar("T")
A = np.arange(1, 9, dtype=np.float32).reshape(2, 4)

DTYPES = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 65535]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[2**53 + 1, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 1]], np.int16),
    "INT32": np.array([[-(2**31), 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**53 + 1]], np.int64),
    "FP32": np.array([[1.5, -0.1]], np.float32),
    "FP64": np.array([[1e300, -0.1]], np.float64),
}


def rest(gateway: Gateway, call: Callable[[InferenceRESTClient, str], Awaitable[T]]) -> T:
    """Makes one call through the REST client."""

    async def run() -> T:
        async with InferenceRESTClient(config=RESTConfig(protocol="v2", timeout=30)) as client:
            return await call(client, f"http://{gateway.http}")

    return asyncio.run(run())


def over_grpc(gateway: Gateway, call: Callable[[InferenceGRPCClient], Awaitable[T]]) -> T:
    """Makes one call through the gRPC client."""

    async def run() -> T:
        async with InferenceGRPCClient(gateway.grpc, timeout=30) as client:
            return await call(client)

    return asyncio.run(run())


def request(model: str, inputs: dict[str, np.ndarray], binary: bool, **more: Any) -> InferRequest:
    """A request with its data in JSON (typed contents over gRPC) or in binary."""
    made = []
    for name, array in inputs.items():
        datatype = next((d for d, a in DTYPES.items() if a.dtype == array.dtype), "FP16")
        one = InferInput(name=name, shape=list(array.shape), datatype=datatype)
        one.set_data_from_numpy(array, binary_data=binary)
        made.append(one)
    return InferRequest(model_name=model, infer_inputs=made, **more)


def infer(gateway: Gateway, protocol: str, asked: InferRequest) -> Any:
    """Sends a request over either protocol."""
    if protocol == "rest":
        return rest(gateway, lambda c, url: c.infer(url, asked, model_name=asked.model_name))
    return over_grpc(gateway, lambda c: c.infer(asked))


def output(answer: Any, name: str) -> np.ndarray:
    """One output as an array."""
    return next(one for one in answer.outputs if one.name == name).as_numpy()


def test_the_server_is_live_and_ready_over_rest(gateway: Gateway) -> None:
    """The client reads a JSON body, which Triton's servers do not send."""
    assert rest(gateway, lambda c, url: c.is_server_live(url)) is True
    assert rest(gateway, lambda c, url: c.is_server_ready(url)) is True


def test_the_server_is_live_and_ready_over_grpc(gateway: Gateway) -> None:
    assert over_grpc(gateway, lambda c: c.is_server_live()) is True
    assert over_grpc(gateway, lambda c: c.is_server_ready()) is True


def test_models_are_ready_one_by_one(gateway: Gateway) -> None:
    for name, ready in [("digits", True), ("nobody", False)]:
        assert rest(gateway, lambda c, url: c.is_model_ready(url, name)) is ready
        assert over_grpc(gateway, lambda c: c.is_model_ready(name)) is ready


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_two_inputs_and_two_outputs(gateway: Gateway, protocol: str, binary: bool) -> None:
    """Trap 11: the parser needs model_name, and data or binary_data_size on each output."""
    answer = infer(
        gateway, protocol, request("add_sub", {"a": A, "b": A * 10}, binary, request_id="7")
    )
    assert (answer.model_name, answer.id) == ("add_sub", "7")
    # The client's REST half drops the version.
    assert answer.model_version == ("1" if protocol == "grpc" else None)
    np.testing.assert_array_equal(output(answer, "sum"), A * 11)
    np.testing.assert_array_equal(output(answer, "difference"), A * -9)


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_every_datatype_of_the_client_comes_back(
    gateway: Gateway, protocol: str, binary: bool, datatype: str
) -> None:
    sent = DTYPES[datatype]
    answer = infer(gateway, protocol, request(f"identity_{datatype.lower()}", {"x": sent}, binary))
    received = output(answer, "y")
    assert received.dtype == sent.dtype
    np.testing.assert_array_equal(received, sent)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_half_precision_comes_back_in_binary(gateway: Gateway, protocol: str) -> None:
    sent = np.array([[1.5, -0.25]], np.float16)
    answer = infer(gateway, protocol, request("identity_fp16", {"x": sent}, binary=True))
    np.testing.assert_array_equal(output(answer, "y"), sent)


def test_binary_outputs_are_asked_for_one_by_one(gateway: Gateway) -> None:
    wanted = RequestedOutput("difference", parameters={"binary_data": True})
    asked = request("add_sub", {"a": A, "b": A}, binary=False, request_outputs=[wanted])
    answer = infer(gateway, "rest", asked)
    assert [one.name for one in answer.outputs] == ["difference"]
    np.testing.assert_array_equal(output(answer, "difference"), A * 0)


def test_a_plain_dictionary_is_a_request_too(gateway: Gateway) -> None:
    body = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [3]}]}
    answer = rest(gateway, lambda c, url: c.infer(url, body, model_name="times"))
    np.testing.assert_array_equal(output(answer, "y"), [[6]])


def test_an_unknown_model_is_404_over_rest(gateway: Gateway) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="unknown model: 'nobody'") as raised:
        infer(gateway, "rest", request("nobody", {"x": A}, binary=True))
    assert raised.value.response.status_code == 404


def test_an_unknown_model_is_not_found_over_grpc(gateway: Gateway) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        infer(gateway, "grpc", request("nobody", {"x": A}, binary=True))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_wrong_inputs_are_refused_and_the_next_call_is_answered(
    gateway: Gateway, protocol: str
) -> None:
    with pytest.raises((httpx.HTTPStatusError, grpc.RpcError)) as raised:
        infer(gateway, protocol, request("add_sub", {"a": A}, binary=True))
    error = raised.value
    if isinstance(error, httpx.HTTPStatusError):
        assert error.response.status_code == 400
    else:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    infer(gateway, protocol, request("add_sub", {"a": A, "b": A}, binary=True))


def test_many_calls_at_once(gateway: Gateway) -> None:
    def asked(call: int) -> InferRequest:
        return request("times", {"x": np.array([[call]], np.float32)}, binary=call % 2 == 0)

    async def over_rest() -> list[Any]:
        async with InferenceRESTClient(config=RESTConfig(protocol="v2", timeout=30)) as client:
            url = f"http://{gateway.http}"
            calls = [client.infer(url, asked(call), model_name="times") for call in range(100)]
            return await asyncio.gather(*calls)

    async def over_the_other() -> list[Any]:
        async with InferenceGRPCClient(gateway.grpc, timeout=30) as client:
            return await asyncio.gather(*(client.infer(asked(call)) for call in range(100)))

    for run in (over_rest, over_the_other):
        for call, answer in enumerate(asyncio.run(run())):
            np.testing.assert_array_equal(output(answer, "y"), [[call * 2]])


# What the client does not offer, its own generated messages do.


def test_metadata_in_the_client_s_own_messages(gateway: Gateway) -> None:
    with grpc.insecure_channel(gateway.grpc) as channel:
        stub = grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub(channel)
        server = stub.ServerMetadata(pb.ServerMetadataRequest())
        assert server.name == "penstock" and "binary_tensor_data" in server.extensions
        model = stub.ModelMetadata(pb.ModelMetadataRequest(name="digits"))
        assert list(model.versions) == ["1", "2"]
        assert [(i.name, i.datatype, list(i.shape)) for i in model.inputs] == [
            ("pixels", "FP32", [-1, 64])
        ]


def test_loading_in_the_client_s_own_messages(start_gateway: Any) -> None:
    """Trap 13: the model's name is field 1 here, and the answer tells whether it is loaded."""
    small = start_gateway("", "times")
    with grpc.insecure_channel(small.grpc) as channel:
        stub = grpc_predict_v2_pb2_grpc.GRPCInferenceServiceStub(channel)
        unloaded = stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="times"))
        assert unloaded.model_name == "times" and unloaded.isUnloaded
        assert not stub.ModelReady(pb.ModelReadyRequest(name="times")).ready
        loaded = stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="times"))
        assert loaded.model_name == "times" and loaded.isLoaded
        assert stub.ModelReady(pb.ModelReadyRequest(name="times")).ready


def test_a_key_goes_along_with_a_call(start_gateway: Callable[..., Gateway]) -> None:
    key = "key-of-the-kserve-client"
    gateway = start_gateway(
        f'[[auth.key]]\nname = "kserve"\nhashes = ["{tokens.hash_of(key)}"]\n'
    )
    x = np.array([[1.5, -2.0]], np.float32)
    asked = request("identity_fp32", {"x": x}, binary=False)
    good = {"authorization": f"Bearer {key}"}
    answer = rest(
        gateway, lambda c, url: c.infer(url, asked, headers=good, model_name="identity_fp32")
    )
    np.testing.assert_array_equal(output(answer, "y"), x)
    answer = over_grpc(gateway, lambda c: c.infer(asked, headers=tuple(good.items())))
    np.testing.assert_array_equal(output(answer, "y"), x)
    with pytest.raises(httpx.HTTPStatusError) as refused:
        infer(gateway, "rest", asked)
    assert refused.value.response.status_code == 401
    with pytest.raises(grpc.RpcError) as error:
        infer(gateway, "grpc", asked)
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
