"""A gateway with routes: its file and state outlive it, and commands run against it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import harness
import wire
from harness import gateway_binary

MODEL = "identity_fp32"
X = np.array([[1.5, -2.0]], np.float32)
BODY = {"inputs": [wire.tensor("FP32", [1, 2], [1.5, -2.0])]}

CANARY = """
[[route]]
name = "identity_fp32"
sticky = "header:x-user-id"
testers = ["qa-*"]
  [[route.arm]]
  name = "stable"
  version = "1"
  [[route.arm]]
  name = "canary"
  version = "2"
  share = "20%"
"""


def two_versions(folder: Path) -> None:
    """The model with a second version, and names for both."""
    harness.write_identity(folder, "FP32", more="[labels]\nbase = 1\nnew = 2\n")
    (folder / MODEL / "2").mkdir()


class Rig:
    """A gateway whose folder outlives it. Its file is read when asked, if not told otherwise."""

    def __init__(
        self,
        folder: Path,
        routes: str = CANARY,
        more: str = "",
        watch: str = "off",
        prepare: Callable[[Path], None] = two_versions,
    ) -> None:
        self.folder = folder
        self.head = f'[state]\npath = "{folder / "state"}"\nwatch = "{watch}"\n{more}'
        self.repository = folder / "models"
        self.repository.mkdir()
        prepare(self.repository)
        self.gateway = harness.start(folder, self.repository, self.head + routes)

    @property
    def file(self) -> Path:
        """The configuration file."""
        return self.folder / "penstock.toml"

    def restart(self) -> None:
        """Stops it and starts it on the same files."""
        self.gateway.stop()
        settings = self.file.read_text().partition("[state]")
        self.gateway = harness.start(self.folder, self.repository, "".join(settings[1:]))

    def text(self, routes: str) -> str:
        """The file with other routes."""
        return self.file.read_text().partition("[state]")[0] + self.head + routes

    def write(self, routes: str) -> None:
        """Changes the routes in the file."""
        self.file.write_text(self.text(routes))

    def run(self, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
        """Runs a command against the admin port."""
        return subprocess.run(
            [gateway_binary(), *arguments, "--url", f"http://{self.gateway.admin}"],
            capture_output=True,
            text=True,
            timeout=60,
            env={"PENSTOCK_TOKEN": token} if token else None,
        )

    def done(self, *arguments: str) -> Any:
        """The JSON of a command that is carried out."""
        made = self.run(*arguments, "--json")
        assert made.returncode == 0, made.stderr
        return json.loads(made.stdout)

    def shares(self) -> dict[str, str]:
        """The shares of the arms."""
        return {arm["name"]: arm["share"] for arm in self.done("route", "show", MODEL)["arms"]}

    def arm(self, name: str) -> Any:
        """How an arm stands."""
        arms = self.done("route", "show", MODEL)["arms"]
        return next(arm for arm in arms if arm["name"] == name)

    def ask(self, method: str, target: str, body: Any = None) -> wire.Response:
        """Calls the admin port."""
        content = None if body is None else json.dumps(body).encode()
        return wire.request(self.gateway.admin, method, target, content)

    def infer(self, *, path: str = "", **headers: str) -> wire.Response:
        """One call over HTTP."""
        target = f"/v2/models/{MODEL}{path}/infer"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return wire.request(
            self.gateway.http, "POST", target, json.dumps(BODY).encode(), headers=sent
        )


def parameters(answer: wire.Response) -> Any:
    """The parameters of an answer over HTTP."""
    assert answer.status == 200, answer
    return answer.json()["parameters"]
