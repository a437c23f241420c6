"""One way to call through each of tritonclient's four clients."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

T = TypeVar("T")
Arrays = dict[str, np.ndarray]

# Each kind of refusal, as HTTP and as gRPC say it.
INVALID = ("400", "StatusCode.INVALID_ARGUMENT")
UNAUTHENTICATED = ("401", "StatusCode.UNAUTHENTICATED")
FORBIDDEN = ("403", "StatusCode.PERMISSION_DENIED")
NOT_FOUND = ("404", "StatusCode.NOT_FOUND")
TOO_LARGE = ("413", "StatusCode.RESOURCE_EXHAUSTED")
FAILED = ("500", "StatusCode.INTERNAL")
UNSUPPORTED = ("501", "StatusCode.UNIMPLEMENTED")
UNAVAILABLE = ("503", "StatusCode.UNAVAILABLE")
TOO_LATE = ("504", "StatusCode.DEADLINE_EXCEEDED")


def refusal(call: Callable[[], Any]) -> tuple[str, str]:
    """Status and text of a call that must be refused."""
    try:
        answer = call()
    except InferenceServerException as error:
        text = error.message()
        assert text, "a refusal says why"
        assert "while decoding the response" not in text, text
        return str(error.status()), text
    raise AssertionError(f"answered: {answer}")


@dataclass(frozen=True)
class Answer:
    """An answer of any client."""

    model: str
    version: str
    id: str
    outputs: list[str]
    result: Any

    def __getitem__(self, name: str) -> np.ndarray:
        array = self.result.as_numpy(name)
        assert array is not None, f"no output '{name}' in {self.outputs}"
        return array

    def datatype(self, name: str) -> str:
        """The datatype that the answer declares."""
        output = self.result.get_output(name)
        return output["datatype"] if isinstance(output, dict) else output.datatype


class Caller(Protocol):
    """A client; the options that a protocol lacks (binary) are ignored by it."""

    protocol: str

    def infer(
        self,
        model: str,
        inputs: Arrays,
        *,
        outputs: list[str] | None = None,
        classes: int = 0,
        binary_in: bool = True,
        binary_out: bool | None = None,
        compress: str | None = None,
        compress_answer: str | None = None,
        **options: Any,
    ) -> Answer: ...

    def refused(self, kind: tuple[str, str], model: str, inputs: Arrays, **options: Any) -> str: ...

    def pause(self, seconds: float) -> None: ...

    def close(self) -> None: ...


class _Refusing:
    protocol: str

    def refused(self, kind: tuple[str, str], model: str, inputs: Arrays, **options: Any) -> str:
        """Text of a call that must be refused with exactly this kind."""
        status, text = refusal(lambda: self.infer(model, inputs, **options))  # type: ignore[attr-defined]
        assert status == kind[self.protocol == "grpc"], f"{status}: {text}"
        return text

    def pause(self, seconds: float) -> None:
        """Does nothing for a while, as an idle program does: an event loop goes on turning."""
        loop = getattr(self, "loop", None)
        if loop:
            loop.run(asyncio.sleep(seconds))
        else:
            time.sleep(seconds)


def http_inputs(inputs: Arrays, binary: bool = True, again: Sequence[str] = ()) -> list[Any]:
    """Inputs for the HTTP clients; `again` names those to send twice."""
    made = []
    for name, array in [*inputs.items(), *((name, inputs[name]) for name in again)]:
        one = tritonclient.http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        made.append(one.set_data_from_numpy(array, binary_data=binary))
    return made


def grpc_inputs(inputs: Arrays, again: Sequence[str] = ()) -> list[Any]:
    """Inputs for the gRPC clients; `again` names those to send twice."""
    made = []
    for name, array in [*inputs.items(), *((name, inputs[name]) for name in again)]:
        one = tritonclient.grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        made.append(one.set_data_from_numpy(array))
    return made


def _http_arguments(
    model: str, inputs: Arrays, outputs: list[str] | None, classes: int, binary_in: bool,
    binary_out: bool | None, compress: str | None, compress_answer: str | None,
    again: Sequence[str], **options: Any,
) -> dict[str, Any]:  # fmt: skip
    wanted = None
    if outputs is not None:
        binary = True if binary_out is None else binary_out
        wanted = [
            tritonclient.http.InferRequestedOutput(name, binary_data=binary, class_count=classes)
            for name in outputs
        ]
    return {
        "model_name": model,
        "inputs": http_inputs(inputs, binary_in, again),
        "outputs": wanted,
        "request_compression_algorithm": compress,
        "response_compression_algorithm": compress_answer,
        **options,
    }


def _grpc_arguments(
    model: str, inputs: Arrays, outputs: list[str] | None, classes: int, compress: str | None,
    again: Sequence[str], **options: Any,
) -> dict[str, Any]:  # fmt: skip
    wanted = None
    if outputs is not None:
        wanted = [tritonclient.grpc.InferRequestedOutput(n, class_count=classes) for n in outputs]
    return {
        "model_name": model,
        "inputs": grpc_inputs(inputs, again),
        "outputs": wanted,
        "compression_algorithm": compress,
        **options,
    }


def http_answer(result: Any) -> Answer:
    """An answer of the HTTP clients."""
    body = result.get_response()
    names = [output["name"] for output in body["outputs"]]
    return Answer(body["model_name"], body["model_version"], body.get("id", ""), names, result)


def grpc_answer(result: Any) -> Answer:
    """An answer of the gRPC clients."""
    message = result.get_response()
    names = [output.name for output in message.outputs]
    return Answer(message.model_name, message.model_version, message.id, names, result)


DEFAULTS: dict[str, Any] = {
    "outputs": None, "classes": 0, "binary_in": True, "binary_out": None, "compress": None,
    "compress_answer": None, "again": (),
}  # fmt: skip


def _for_grpc(options: dict[str, Any]) -> dict[str, Any]:
    options = DEFAULTS | options
    for absent in ("binary_in", "binary_out", "compress_answer"):
        options.pop(absent)
    return options


class HttpCaller(_Refusing):
    """tritonclient.http."""

    protocol = "http"

    def __init__(self, address: str) -> None:
        self.client = tritonclient.http.InferenceServerClient(address)

    def infer(self, model: str, inputs: Arrays, **options: Any) -> Answer:
        arguments = _http_arguments(model, inputs, **(DEFAULTS | options))
        return http_answer(self.client.infer(**arguments))

    def close(self) -> None:
        self.client.close()


class GrpcCaller(_Refusing):
    """tritonclient.grpc."""

    protocol = "grpc"

    def __init__(self, address: str) -> None:
        self.client = tritonclient.grpc.InferenceServerClient(address)

    def infer(self, model: str, inputs: Arrays, **options: Any) -> Answer:
        return grpc_answer(
            self.client.infer(**_grpc_arguments(model, inputs, **_for_grpc(options)))
        )

    def close(self) -> None:
        self.client.close()


class _Loop:
    """An event loop of its own, for the asynchronous clients."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs one coroutine to its end."""
        return self.loop.run_until_complete(coroutine)


class HttpAioCaller(_Refusing):
    """tritonclient.http.aio."""

    protocol = "http"

    def __init__(self, address: str) -> None:
        self.loop = _Loop()
        self.client = self.loop.run(self._connect(address))

    @staticmethod
    async def _connect(address: str) -> Any:
        return tritonclient.http.aio.InferenceServerClient(address)

    def infer(self, model: str, inputs: Arrays, **options: Any) -> Answer:
        arguments = _http_arguments(model, inputs, **(DEFAULTS | options))
        return http_answer(self.loop.run(self.client.infer(**arguments)))

    def close(self) -> None:
        self.loop.run(self.client.close())
        self.loop.loop.close()


class GrpcAioCaller(_Refusing):
    """tritonclient.grpc.aio."""

    protocol = "grpc"

    def __init__(self, address: str) -> None:
        self.loop = _Loop()
        self.client = self.loop.run(self._connect(address))

    @staticmethod
    async def _connect(address: str) -> Any:
        return tritonclient.grpc.aio.InferenceServerClient(address)

    def infer(self, model: str, inputs: Arrays, **options: Any) -> Answer:
        arguments = _grpc_arguments(model, inputs, **_for_grpc(options))
        return grpc_answer(self.loop.run(self.client.infer(**arguments)))

    def close(self) -> None:
        self.loop.run(self.client.close())
        self.loop.loop.close()


CALLERS: dict[str, Callable[..., Any]] = {
    "http": HttpCaller,
    "http.aio": HttpAioCaller,
    "grpc": GrpcCaller,
    "grpc.aio": GrpcAioCaller,
}
