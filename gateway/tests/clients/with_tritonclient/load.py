"""Callers that go on until they are told to stop, and remember everything that was not right."""

from __future__ import annotations

import http.client
import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

import wire
from harness import Gateway, wait_until

MODEL = "identity_fp32"
GAVE_UP = (http.client.RemoteDisconnected, ConnectionError, http.client.CannotSendRequest)


StartOn = Callable[..., Gateway]


@dataclass
class Book:
    """What became of the calls."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    answered: int = 0
    # Answers that are not what was asked for: never, whatever happens.
    wrong: list[Any] = field(default_factory=list)
    # Calls that were refused or broke, each with its reason.
    failed: list[str] = field(default_factory=list)

    def add(self, failure: str | None = None, wrong: Any = None) -> None:
        """Counts one call."""
        with self.lock:
            if wrong is not None:
                self.wrong.append(wrong)
            elif failure is not None:
                self.failed.append(failure)
            else:
                self.answered += 1


class Load:
    """Callers over both protocols; every one sends numbers of its own and expects them back."""

    def __init__(self, gateway: Gateway, callers: int) -> None:
        self.gateway = gateway
        self.book = Book()
        self.done = threading.Event()
        works = [self._over_http, self._over_grpc]
        self.threads = [
            threading.Thread(target=works[index % 2], args=(index,)) for index in range(callers)
        ]

    def end(self) -> None:
        """No more calls; returns when the last is answered."""
        self.done.set()
        for thread in self.threads:
            thread.join()

    def _over_http(self, caller: int) -> None:
        host, port = self.gateway.http.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=wire.TIMEOUT)
        call = 0
        while not self.done.is_set():
            call += 1
            numbers = [float(caller), float(call % 1000)]
            body = json.dumps({"inputs": [wire.tensor("FP32", [1, 2], numbers)]})
            try:
                connection.request("POST", f"/v2/models/{MODEL}/infer", body)
                answer = connection.getresponse()
                text = answer.read()
            except GAVE_UP as error:
                connection.close()
                self.book.add(failure=f"http: {type(error).__name__}")
                self.done.wait(0.01)
                continue
            if answer.status != 200:
                self.book.add(failure=f"http: {answer.status} {text[:200]!r}")
                self.done.wait(0.01)
                continue
            got = json.loads(text)["outputs"][0]["data"]
            self.book.add(wrong=None if got == numbers else (numbers, got))
        connection.close()

    def _over_grpc(self, caller: int) -> None:
        call = 0
        with grpc.insecure_channel(self.gateway.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while not self.done.is_set():
                call += 1
                raw = struct.pack("<2f", caller, call % 1000)
                request = pb.ModelInferRequest(model_name=MODEL, raw_input_contents=[raw])
                request.inputs.add(name="x", datatype="FP32", shape=(1, 2))
                try:
                    answer = stub.ModelInfer(request, timeout=wire.TIMEOUT)
                except grpc.RpcError as error:
                    self.book.add(failure=f"grpc: {error.code().name} {error.details()}")
                    self.done.wait(0.01)
                    continue
                got = answer.raw_output_contents[0]
                self.book.add(wrong=None if got == raw else (raw, got))


@contextmanager
def under_load(gateway: Gateway, callers: int = 4) -> Iterator[Book]:
    """Calls go on while the body runs; none may be answered wrongly, whatever it does."""
    load = Load(gateway, callers)
    for thread in load.threads:
        thread.start()
    try:
        yield load.book
    finally:
        load.end()
    assert not load.book.wrong, load.book.wrong[:3]


def wait_for_answers(book: Book, more: int = 20) -> None:
    """Waits until so many more calls are answered: whatever happened before, it serves."""
    wanted = book.answered + more
    wait_until(lambda: book.answered >= wanted)


def states(gateway: Gateway) -> dict[tuple[str, str], tuple[str, str]]:
    """State and reason of every version."""
    index = wire.request(gateway.http, "POST", "/v2/repository/index").json()
    return {
        (entry["name"], entry.get("version", "")): (entry["state"], entry.get("reason", ""))
        for entry in index
    }


def is_ready(gateway: Gateway) -> bool:
    """Whether load balancers should send calls."""
    return wire.request(gateway.http, "GET", "/v2/health/ready").status == 200
