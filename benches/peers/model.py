"""The one model that every server gets: version 1 of the digits network, 64 numbers in, 10 out."""

from __future__ import annotations

import csv
import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

NAME = "digits"
INPUT = "pixels"
WIDTH = 64
OUTPUT = "logits"
CLASSES = 10
MAX_BATCH = 64
# Pixels count from 0 to 16 in the data and from 0 to 1 in requests.
LARGEST_PIXEL = 16.0


class WrongAnswer(Exception):
    """A server that answers, but not what it should."""


def file_in(root: Path) -> Path:
    """The TorchScript file."""
    return root / "models" / "repository" / NAME / "1" / "model.pt"


def data_in(root: Path) -> Path:
    """Rows of label,p0,p1,… to send."""
    return root / "models" / "digits_test.csv"


def read_rows(path: Path) -> list[list[float]]:
    """Every row of the data, as requests carry it."""
    with path.open(newline="") as lines:
        return [[float(cell) / LARGEST_PIXEL for cell in row[1:]] for row in list(csv.reader(lines))[1:]]


def infer(url: str, model: str, row: list[float], timeout: float) -> tuple[str, list[float]]:
    """Asks a server for one row over HTTP with JSON: the version that answered, and the outputs."""
    body = {"inputs": [{"name": INPUT, "shape": [1, WIDTH], "datatype": "FP32", "data": row}]}
    connection = HTTPConnection(urlsplit(url).netloc, timeout=timeout)
    try:
        connection.request("POST", f"/v2/models/{model}/infer", json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise WrongAnswer(f"HTTP {answer.status}: {text[:200].decode(errors='replace')}")
    decoded = json.loads(text)
    (output,) = decoded["outputs"]
    return decoded.get("model_version") or "", flatten(output["data"])


def flatten(data: list[Any]) -> list[float]:
    """The numbers of a tensor, flat or nested."""
    return [number for item in data for number in (flatten(item) if isinstance(item, list) else [float(item)])]
