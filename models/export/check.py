"""Recomputes the committed digits models' figures with PyTorch and compares them with what is recorded.

    python check.py MODELS_FOLDER

For every version: the checksum of model.pt, the accuracy on digits_test.csv, the golden answers.
Exits with 1 when one of them differs.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from data import Digits, read_csv
from repository import sha256
from training import metrics

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def golden_difference(model: torch.jit.ScriptModule, golden: dict[str, Any]) -> float:
    """The largest difference from a golden answer, as a multiple of what that answer tolerates."""
    worst = 0.0
    for request in golden["requests"]:
        tensors = [torch.tensor(item["data"]).reshape(item["shape"]) for item in request["inputs"]]
        with torch.no_grad():
            answer = model(*tensors)
        (expected,) = request["outputs"]
        wanted = torch.tensor(expected["data"]).reshape(expected["shape"])
        scale = wanted.abs().max() * request["tolerance"]
        worst = max(worst, ((answer - wanted).abs().max() / scale).item())
    return worst


def problems_of(folder: Path, recorded: dict[str, Any], test: Digits) -> list[str]:
    """Checks one version, prints its line, and says what is wrong with it."""
    path = folder / "model.pt"
    model = torch.jit.load(str(path))
    figures = metrics(model, test)
    difference = golden_difference(model, json.loads((folder / "golden.json").read_text()))
    name = f"{folder.parent.name}/{folder.name}"
    print(
        f"{name:<14}{figures['correct']:>4}/{figures['total']}  {figures['accuracy']:.4f}"
        f"  golden {difference:7.4f} of the tolerance  {path.stat().st_size:>7} bytes"
    )
    problems = []
    if sha256(path) != recorded["sha256"]:
        problems.append(f"{name}: model.pt is not the file that model.toml pins")
    if figures != recorded["lineage"]["metrics"]:
        problems.append(f"{name}: model.toml records {recorded['lineage']['metrics']}, measured {figures}")
    if not difference <= 1.0:
        problems.append(f"{name}: a golden answer differs by {difference:.2f} times its tolerance")
    return problems


def main(models: Path) -> int:
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    test = read_csv(models / "digits_test.csv")
    problems = []
    for description in sorted(models.glob("repository/digits*/model.toml")):
        recorded = tomllib.loads(description.read_text())
        for number, version in recorded["version"].items():
            problems += problems_of(description.parent / number, version, test)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
