"""A prediction log with something to ask about, written by real gateways."""

from __future__ import annotations

import http.client
import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness

MODEL = """platform = "identity"
max_batch_size = 64
[[input]]
name = "applicant"
dtype = "FP32"
shape = [-1, {count}]
features = {features}
[[input]]
name = "name"
dtype = "BYTES"
shape = [-1, 1]
[[output]]
name = "score"
dtype = "FP32"
shape = [-1, {count}]
features = {outputs}
[[output]]
name = "greeting"
dtype = "BYTES"
shape = [-1, 1]
"""
# The shadow takes higher incomes for this one, so that it finds another class for them.
CAPPED = """
[input.contract]
[[input.contract.feature]]
index = 1
range = [0, 50]
default = 0.0
action = "impute"
"""
ROUTES = """
[[route]]
name = "loans"
sticky = "header:x-user-id"
log = "durable"
  [[route.arm]]
  name = "stable"
  model = "credit"
  version = "1"
  [[route.arm]]
  name = "canary"
  model = "credit"
  version = "2"
  share = "20%"
  [[route.shadow]]
  name = "next"
  model = "credit_next"
  sample = "100%"
  max_in_flight = 4096
  timeout = "60s"
[[route]]
name = "clicks"
log = "sampled"
  [[route.arm]]
  name = "all"
  model = "credit"
  version = "1"
"""
LOG = """
[prediction_log]
path = "{path}"
hash_key = "file:{key}"
tensor_limit = "256B"
segment_age = "1s"
keep = "off"
slices = ["header:x-region"]
min_free = "0B"
[prediction_log.sampling]
rate = "50%"
adaptive = false
[[prediction_log.redact]]
field = "in.name"
how = "hash"
[[prediction_log.redact]]
field = "out.greeting"
how = "drop"
"""
DAYS = ("2026-03-01", "2026-03-02")


def texts(values: Iterable[bytes]) -> bytes:
    """BYTES as they go over the wire."""
    return b"".join(struct.pack("<I", len(value)) + value for value in values)


def floats(rows: Sequence[Sequence[float]]) -> bytes:
    """FP32 as they go over the wire."""
    numbers = [number for row in rows for number in row]
    return struct.pack(f"<{len(numbers)}f", *numbers)


class Caller:
    """One connection, on which calls are made one after the other."""

    def __init__(self, gateway: harness.Gateway) -> None:
        self._connection = http.client.HTTPConnection(gateway.http, timeout=60)

    def call(
        self,
        model: str,
        tensors: dict[str, tuple[str, list[int], bytes]],
        headers: dict[str, str] | None = None,
        *,
        binary: bool = True,
    ) -> tuple[int, Any]:
        """Calls a model with binary tensors: status, and the answer's JSON."""
        inputs = [
            {
                "name": name,
                "datatype": datatype,
                "shape": shape,
                "parameters": {"binary_data_size": len(data)},
            }
            for name, (datatype, shape, data) in tensors.items()
        ]
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": binary}}).encode()
        body = head + b"".join(data for _, _, data in tensors.values())
        sent = {"Inference-Header-Content-Length": str(len(head))} | (headers or {})
        self._connection.request("POST", f"/v2/models/{model}/infer", body, sent)
        answer = self._connection.getresponse()
        content = answer.read()
        length = answer.headers.get("Inference-Header-Content-Length")
        return answer.status, json.loads(content[: int(length)] if length else content)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


@dataclass
class Filled:
    """The folder of the log, and what was done to fill it."""

    folder: Path
    # Ids of answered calls of the route `loans`, by day.
    answered: list[list[str]] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    sampled_calls: int = 0


def applicants(call: int, features: int, shift: float) -> list[list[float]]:
    """Four items; one income of five is missing."""
    rows = []
    for item in range(4):
        number = call * 4 + item
        income = float("nan") if number % 5 == 0 else float(number % 100) + shift
        rows.append([float(20 + number % 50), income, 1.0][:features])
    return rows


def write_models(repository: Path, features: list[str]) -> None:
    """The model of the routes and its shadow."""
    outputs = ["low", "high", "other"][: len(features)]
    text = MODEL.format(count=len(features), features=features, outputs=outputs)
    for name, versions in (("credit", "12"), ("credit_next", "1")):
        for version in versions:
            (repository / name / version).mkdir(parents=True, exist_ok=True)
        head, mark, rest = text.partition('[[input]]\nname = "name"')
        capped = CAPPED if name == "credit_next" else ""
        (repository / name / "model.toml").write_text(head + capped + mark + rest)


def figure(gateway: harness.Gateway, name: str) -> float:
    """A metric of the log."""
    return harness.metric(gateway, f"penstock_prediction_log_{name}")


def is_converted(gateway: harness.Gateway) -> bool:
    """Whether all rows are in files."""
    written = figure(gateway, "rows_total")
    return figure(gateway, "queue_rows") == 0 and figure(gateway, "converted_rows_total") == written


def end(gateway: harness.Gateway, seconds: float = 120) -> None:
    """Stops a gateway once all of its rows are in files."""
    harness.wait_until(lambda: is_converted(gateway), seconds)
    assert figure(gateway, "dropped_rows_total") == 0
    gateway.stop()


def run_day(folder: Path, filled: Filled, features: list[str], shift: float) -> None:
    """Starts a gateway, makes the calls of one day and ends it."""
    repository, own = folder / "repository", folder / f"gateway-{len(filled.answered)}"
    own.mkdir()
    write_models(repository, features)
    key = folder / "key"
    key.write_text("planted-key-of-the-log-that-nobody-knows")
    settings = LOG.format(path=filled.folder, key=key) + f'[state]\npath = "{own}/state"\n' + ROUTES
    gateway = harness.start(own, repository, settings)
    caller = Caller(gateway)

    def ask(
        model: str, call: int, name: bytes = b"", times: int = 1, **more: Any
    ) -> tuple[int, Any]:
        rows = applicants(call, len(features), shift) * times
        names = [name or f"applicant-{call}-{item}".encode() for item in range(len(rows))]
        tensors = {
            "applicant": ("FP32", [len(rows), len(features)], floats(rows)),
            "name": ("BYTES", [len(rows), 1], texts(names)),
        }
        headers = {"x-user-id": f"user-{call}", "x-region": ("north", "south")[call % 2]}
        return caller.call(model, tensors, headers, **more)

    answered = []
    for call in range(100):
        status, answer = ask("loans", call)
        assert status == 200, answer
        answered.append(answer["parameters"]["prediction_id"] if "parameters" in answer else "")
    filled.answered.append(answered)
    # Another shape than the model has; more than the log takes; what JSON cannot say.
    wrong = {
        "applicant": ("FP32", [1, 9], floats([[1.0] * 9])),
        "name": ("BYTES", [1, 1], texts([b"n"])),
    }
    for _ in range(10):
        status, _ = caller.call("loans", wrong, {"x-user-id": "wrong"})
        assert status == 400
    status, answer = ask("loans", 3, times=12)
    assert status == 200, answer
    status, answer = ask("loans", 4, b"\xff\xfe", binary=False)
    filled.refused.append(status)
    for call in range(400):
        status, answer = ask("clicks", call)
        assert status == 200, answer
    filled.sampled_calls += 400
    harness.wait_until(
        lambda: (
            harness.metric(gateway, "penstock_shadow_requests_total", outcome="compared") >= 101
        ),
        120,
    )
    caller.close()
    end(gateway)


def write(folder: Path) -> Filled:
    """A log of two days. The clock cannot be set back: the days are names of folders alone."""
    filled = Filled(folder / "predictions")
    for day, features, shift in zip(
        DAYS, (["age", "income"], ["age", "income", "debts"]), (0.0, 30.0), strict=True
    ):
        run_day(folder, filled, features, shift)
        for hour in sorted((filled.folder / "files").glob("model=*/version=*/date=*/hour=*")):
            if hour.parent.name.removeprefix("date=") not in DAYS:
                target = hour.parent.parent / f"date={day}" / hour.name
                target.parent.mkdir(exist_ok=True)
                hour.rename(target)
                if not any(hour.parent.iterdir()):
                    hour.parent.rmdir()
    return filled
