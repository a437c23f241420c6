"""HTTP as plain as it goes: no header that the test does not set, and bodies of any kind."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TIMEOUT = 30.0


@dataclass(frozen=True)
class Response:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    def error(self) -> str:
        """The text of an error, which must have exactly one form whatever went wrong."""
        assert self.status >= 400, f"answered with {self.status}: {self.body[:200]!r}"
        assert self.headers.get("content-type") == "application/json", self
        assert "content-encoding" not in self.headers, "errors are never compressed"
        parsed = self.json()
        assert list(parsed) == ["error"] and parsed["error"], parsed
        return str(parsed["error"])


def request(
    address: str,
    method: str,
    target: str,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Sends one request. A body of bytes gets its Content-Length, an iterable goes chunked."""
    headers = dict(headers or {})
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT)
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        chunked = body is not None and not isinstance(body, bytes)
        given = {name.lower() for name in headers}
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None and "content-length" not in given:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in headers.items():
            connection.putheader(name, value)
        try:
            connection.endheaders(body, encode_chunked=chunked)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a server may refuse before it has read everything; its answer is still there
        answer = connection.getresponse()
        received = {name.lower(): value for name, value in answer.getheaders()}
        return Response(answer.status, received, answer.read())
    finally:
        connection.close()


def infer(
    address: str,
    model: str,
    body: Any,
    headers: Mapping[str, str] | None = None,
    blobs: bytes = b"",
) -> Response:
    """POST …/infer with a JSON body (or bytes as they are), followed by binary tensors."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = dict(headers or {})
    if blobs and not any(name.lower() == "inference-header-content-length" for name in headers):
        headers["Inference-Header-Content-Length"] = str(len(text))
    return request(address, "POST", f"/v2/models/{model}/infer", text + blobs, headers)


def tensor(datatype: str, shape: list[int], data: Any, name: str = "x") -> dict[str, Any]:
    """An input in JSON."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def connect(address: str) -> socket.socket:
    """A bare connection."""
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=TIMEOUT)


def read_until_closed(connection: socket.socket) -> bytes:
    """Everything that the other side sends before it closes; a reset closes, too."""
    received = b""
    while True:
        try:
            piece = connection.recv(65536)
        except ConnectionResetError:
            return received
        if not piece:
            return received
        received += piece


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A frame of HTTP/2."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def next_frame(received: bytes) -> tuple[int, int, bytes, bytes] | None:
    """Kind, flags and payload of the first whole frame of HTTP/2, and what follows it."""
    end = 9 + int.from_bytes(received[:3], "big")
    if len(received) < max(9, end):
        return None
    return received[3], received[4], received[9:end], received[end:]


def literal(name: bytes, value: bytes) -> bytes:
    """A header in HTTP/2, spelled out."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


class Meter:
    """Passes connections on to `address` and counts the bytes that come back."""

    def __init__(self, address: str) -> None:
        self.target = address
        self.received = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self.listener.accept()
            except OSError:
                return
            server = connect(self.target)
            for source, sink, counted in [(caller, server, False), (server, caller, True)]:
                threading.Thread(
                    target=self._pump, args=(source, sink, counted), daemon=True
                ).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while piece := source.recv(65536):
                self.received += len(piece) if counted else 0
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
