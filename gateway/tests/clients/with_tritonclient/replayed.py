"""A gateway that records calls, and the command that replays them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc

import harness
from calls import grpc_inputs
from harness import gateway_binary

CALLS = 40
ID = "12345678-1234"


def identity(folder: Path, name: str, contract: str = "") -> None:
    """Writes a model of two floats that answers its input; two runs give the same bytes."""
    (folder / name / "1").mkdir(parents=True)
    tensor = 'dtype = "FP32"\nshape = [-1, 2]\n'
    (folder / name / "model.toml").write_text(
        'platform = "identity"\nmax_batch_size = 8\n'
        f'[[input]]\nname = "x"\n{tensor}{contract}[[output]]\nname = "y"\n{tensor}'
        "[engine]\ndeterministic = true\n"
    )


# What is above one is mended, so that other values come out.
CLAMPED = '[input.contract]\nrange = [-100.0, 1.0]\naction = "impute"\ndefault = 0.5\n'


class Recorded:
    """A gateway with a prediction log, and the commands that read it."""

    def __init__(
        self,
        folder: Path,
        log: str = "",
        *models: str,
        prepare: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        repository = folder / "models"
        repository.mkdir()
        for name in models:
            harness.copy_models(harness.MODELS / "repository", repository, name)
        prepare(repository)
        identity(repository, "same")
        identity(repository, "clamped", CLAMPED)
        harness.write_identity(repository, "INT64", name="whole")
        settings = f'[prediction_log]\npath = "{folder / "log"}"\n{log}'
        self.gateway = harness.start(folder, repository, settings)

    def ask(self, calls: int = CALLS, model: str = "same") -> list[str]:
        """Asks for predictions; returns their ids."""
        ids = []
        with tritonclient.grpc.InferenceServerClient(self.gateway.grpc) as client:
            for number in range(calls):
                rows = 1 + number % 3
                values = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2) + number / 7
                answer = client.infer(model, grpc_inputs({"x": values}), request_id=ID)
                response = answer.get_response()
                ids.append(response.parameters["prediction_id"].string_param)
        return ids

    def send(self, file: Path) -> Any:
        """What became of feedback in a file."""
        command = [gateway_binary(), "feedback", "send", f"--url=http://{self.gateway.http}"]
        told = [*command, "--file", file, "--json"]
        ended = subprocess.run(told, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended
        return json.loads(ended.stdout)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Replays."""
        config = str(self.folder / "penstock.toml")
        return subprocess.run(
            [gateway_binary(), "replay", "--config", config, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
        )

    def replay(self, *arguments: str, status: int = 0) -> Any:
        """What a replay tells."""
        ended = self.run("--json", *arguments)
        assert ended.returncode == status, ended
        return json.loads(ended.stdout)
