"""What the driver asks of a server: how it is started, with which settings, what it cannot do."""

from __future__ import annotations

import os
import re
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import model

HOST = "127.0.0.1"
# Every server computes on one thread; those that may start more are told so in their settings.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# Where a file of a wheel lies, see scripts/peers.sh.
PEERS_FOLDER = ".peers"


class Unavailable(Exception):
    """A server that cannot be run here, and why."""


@dataclass(frozen=True)
class Places:
    """Where things are."""

    root: Path
    gateway: Path
    # A folder of the server's own for what it needs, gone after the run.
    work: Path

    @property
    def apps(self) -> Path:
        """Code and configuration that runs inside the servers."""
        return self.root / "benches" / "peers" / "apps"

    @property
    def model_file(self) -> Path:
        """The TorchScript file that everyone serves."""
        return model.file_in(self.root)

    def installed(self, name: str) -> Path:
        """The environment of a peer."""
        folder = self.root / PEERS_FOLDER / name
        if (folder / ".complete").is_file():
            return folder
        raise Unavailable(self.failure(name))

    def failure(self, name: str) -> str:
        """Why something is not installed."""
        reason = self.root / PEERS_FOLDER / f"{name}.failed"
        if reason.is_file():
            return f"could not be installed: {self.neutral(reason.read_text().strip())}"
        return "is not installed: run scripts/peers.sh"

    def packages(self, name: str) -> Path:
        """The installed packages of a peer."""
        (folder,) = (self.installed(name) / "lib").glob("python3.*/site-packages")
        return folder

    def version_of(self, name: str, package: str) -> str:
        """The version of a package that a peer has."""
        pattern = re.sub("[-_.]+", "_", package)
        (folder,) = self.packages(name).glob(f"{pattern}-*.dist-info")
        return folder.name.removesuffix(".dist-info").rpartition("-")[2]

    def neutral(self, text: str) -> str:
        """A text without paths of this machine."""
        return re.sub(r"(/[\w.+-]+){2,}/", "…/", text)


@dataclass(frozen=True)
class Launch:
    """How a server is started and where it then listens."""

    command: list[str]
    http: str
    grpc: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    # What the client says for NAME in /v2/models/NAME/infer.
    model: str = model.NAME

    def full_environment(self) -> dict[str, str]:
        """The environment of the process: little of ours, so that runs are alike."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **ONE_THREAD, **self.environment}


class Server(ABC):
    """One kind of server."""

    # On the command line, and in tables.
    name: str
    title: str
    # What was set, for readers to judge.
    settings: str
    # Protocols that it does not offer, each with the reason.
    lacks: Mapping[str, str] = {}

    @abstractmethod
    def version(self, places: Places) -> str:
        """What is running."""

    @abstractmethod
    def prepare(self, places: Places) -> Launch:
        """Lays out what the server reads; raises `Unavailable` where it cannot run."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def url(port: int) -> str:
    """The address of a port."""
    return f"http://{HOST}:{port}"
