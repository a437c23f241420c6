"""A real S3-compatible server (moto) of a test's own, behind a door that fails and stalls on demand."""

from __future__ import annotations

import http.client
import io
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import harness
import pyarrow.parquet as parquet

BUCKET = "logs"
# How much later a slow server answers.
SLOW_SECONDS = 0.5


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Door(ThreadingHTTPServer):
    """Hands requests on to the server, unless its mood is another one.

    `mood` is "well", "slow" (everything is done, and answered a while later), "stalled" (nothing is
    answered), or a status with a body that is answered instead.
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port
        self.mood: str | tuple[int, str] = "well"
        self.refused = 0
        # Objects that the server has and whoever sent them does not know of.
        self.unconfirmed = 0
        self.is_over = threading.Event()

    @property
    def url(self) -> str:
        """What a gateway takes for the store's endpoint."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Door

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        mood = self.server.mood
        if mood == "stalled":
            self.server.refused += 1
            while self.server.mood == "stalled" and not self.server.is_over.wait(0.05):
                pass
            self.close_connection = True
            return
        if isinstance(mood, tuple):
            self.server.refused += 1
            status, text = mood
            return self._send(status, [], text.encode())
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        headers = dict(self.headers.items())
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        kept = [
            (name, value)
            for name, value in answer.getheaders()
            if name.lower() not in ("connection", "transfer-encoding", "content-length")
        ]
        length = answer.getheader("content-length")
        if mood == "slow":
            is_object = self.command == "PUT" and ".parquet" in self.path
            self.server.unconfirmed += is_object
            self.server.is_over.wait(SLOW_SECONDS)
            self.server.unconfirmed -= is_object
        self._send(answer.status, kept, answer.read(), length if self.command == "HEAD" else None)
        upstream.close()

    def _send(
        self, status: int, headers: list[tuple[str, str]], body: bytes, length: str | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class ObjectStore:
    """The server, asked past the door."""

    def __init__(self, port: int, door: Door) -> None:
        self.door = door
        self._client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self._client.create_bucket(Bucket=BUCKET)

    def objects(self) -> dict[str, bytes]:
        """Every object with its bytes."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        names = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return {
            name: self._client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in names
        }

    def column(self, name: str) -> list[object]:
        """A column of all Parquet files together."""
        values: list[object] = []
        for key, data in sorted(self.objects().items()):
            if key.endswith(".parquet"):
                table = parquet.ParquetFile(io.BytesIO(data)).read(columns=[name])
                values += table.column(name).to_pylist()
        return values


@contextmanager
def running(folder: Path) -> Iterator[ObjectStore]:
    """Starts a server and its door, and ends them."""
    port = _free_port()
    program = Path(sys.executable).parent / "moto_server"
    with (folder / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    door = Door(port)
    thread = threading.Thread(target=door.serve_forever, daemon=True)
    thread.start()
    try:
        harness.wait_until(lambda: _answers(port), 60)
        yield ObjectStore(port, door)
    finally:
        door.is_over.set()
        door.shutdown()
        door.server_close()
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        time.sleep(0.1)
        return False
    return True
