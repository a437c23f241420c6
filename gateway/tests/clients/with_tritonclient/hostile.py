"""Valid bytes of each port's protocol, and what becomes of them by mutation."""

from __future__ import annotations

import json
import random

import wire
from harness import Gateway

# A debug build on a busy machine; what waits for more bytes is not waited for.
PATIENCE = 0.05

BODY = json.dumps({"inputs": [wire.tensor("FP32", [1, 2], [1.0, 2.0])]}).encode()
INFER = (
    b"POST /v2/models/identity_fp32/infer HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)
CHUNKED = (
    b"POST /v2/models/identity_fp32/infer HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
)
READY = b"GET /v2/health/ready HTTP/1.1\r\nHost: a\r\n\r\n"
DRAIN = b'POST /v1/drain HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{"on":false}'


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without compression (RFC 7541, 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


HEADERS = b"".join(
    literal(*pair)
    for pair in (
        (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"),
        (b":path", b"/inference.GRPCInferenceService/ServerReady"),
        (b"te", b"trailers"), (b"content-type", b"application/grpc"),
    )
)  # fmt: skip
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GRPC = (
    GREETING + frame(4, 0, 0, b"") + frame(1, 4, 1, HEADERS) + frame(0, 1, 1, b"\0\0\0\0\0")
    + frame(6, 0, 0, b"12345678") + frame(8, 0, 0, b"\0\0\1\0") + frame(3, 0, 1, b"\0\0\0\0")
)  # fmt: skip
PIECES = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity, chunked\r\n",
    b"ffffffffffffffff\r\n",
    b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"\xff" * 9, b"\0" * 9,
    GREETING, READY, frame(4, 0, 0, b"\0\4\xff\xff\xff\xff"), frame(9, 0, 1, HEADERS),
    frame(1, 4, 3, b"\x3f\xff\xff\xff\xff\x7f"), frame(7, 0, 0, b"\0" * 8), frame(0, 8, 1, b"\xff"),
)  # fmt: skip


def mutate(seed: bytes, draw: random.Random) -> bytes:
    """One to eight random changes."""
    out = bytearray(seed)
    for _ in range(draw.randint(1, 8)):
        at = draw.randint(0, len(out))
        match draw.randrange(6):
            case 0 if out:
                out[draw.randrange(len(out))] ^= draw.randint(1, 255)
            case 1:
                del out[at : at + draw.randint(1, 40)]
            case 2:
                out[at:at] = draw.choice(PIECES)
            case 3:
                out[at:at] = draw.randbytes(draw.randint(1, 64))
            case 4:
                out[at:at] = out[max(0, at - 64) : at] * draw.randint(1, 50)
            case _:
                del out[at:]
    return bytes(out)


def send(address: str, data: bytes) -> None:
    """Sends and reads a little; whatever the server makes of it is its business."""
    with wire.connect(address) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.sendall(data)
            while connection.recv(65536):
                pass
        except (TimeoutError, ConnectionError):
            pass


def still_serves(gateway: Gateway) -> None:
    """The whole answer to a whole request, over every port."""
    answer = wire.infer(gateway.http, "identity_fp32", BODY)
    assert answer.json()["outputs"][0]["data"] == [1.0, 2.0]
    assert wire.request(gateway.metrics, "GET", "/metrics").status == 200
    assert wire.request(gateway.admin, "GET", "/v1/status").status == 200
    with wire.connect(gateway.grpc) as connection:
        connection.sendall(GRPC)
        assert connection.recv(9)[3:4] == b"\4", "it greets with its settings"


SEEDS = {"http": [INFER, CHUNKED, READY], "grpc": [GRPC], "metrics": [READY], "admin": [DRAIN]}


def draw_bytes(door: str, draw: random.Random) -> bytes:
    """Bytes for a port: random ones, or more often something that begins well."""
    if draw.random() < 0.125:
        return draw.randbytes(draw.randint(1, 4096))
    return mutate(draw.choice(SEEDS[door]), draw)
