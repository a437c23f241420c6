"""Trains and writes the committed example models: digits (versions 1, 2, 3), digits_cnn, digits_test.csv.

    python digits.py MODELS_FOLDER

Version 3 of `digits` is wrong on purpose, in the manner of a real mishap: a second annotator read faint
eights as threes and faint nines as fours, and the network learned it.  It has the right signature, runs
as fast as version 2, is confident, and scores well over all; a shadow or a canary has to find it.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from data import DESCRIPTION, Digits, load_split, write_csv
from networks import Convolutional, Perceptron
from repository import Port, Signature, Version, write_model
from training import make_repeatable, metrics, recall_by_class, train

RATE = 2e-3
APPROVED = "the Penstock project, as an example"
MISREAD = {8: 3, 9: 4}  # what the second annotator made of faint digits
FAINT = 0.35  # the share of each of these digits that counts as faint


def signature(description: str, versions: dict[str, Any]) -> Signature:
    """All digits models look the same from outside."""
    labels = [str(digit) for digit in range(10)]
    return Signature(
        description=description,
        max_batch_size=64,
        inputs=[Port("pixels", "FP32", [-1, 64])],
        outputs=[Port("logits", "FP32", [-1, 10], labels=labels, tolerance=1e-5)],
        versions=versions,
        warmup=[1, 8, 64],
    )


def misread(digits: Digits) -> Digits:
    """The same rows with the second annotator's labels."""
    labels = digits.labels.clone()
    ink = digits.pixels.sum(dim=1)
    for digit, taken_for in MISREAD.items():
        rows = digits.labels == digit
        faint = ink < ink[rows].float().quantile(FAINT)
        labels[rows & faint] = taken_for
    return Digits(digits.pixels, labels)


@dataclass(frozen=True)
class Recipe:
    """How one version is trained."""

    number: int
    kind: type[nn.Module]
    shape: dict[str, Any]
    epochs: int
    seed: int
    data: str = DESCRIPTION
    approved_by: str = APPROVED


def build(recipe: Recipe, rows: Digits, test: Digits) -> Version:
    """Trains one version on `rows` and records how, and how well it does on the held-out ones."""
    make_repeatable(recipe.seed)
    network = train(recipe.kind(**recipe.shape), rows, recipe.epochs, RATE)
    figures = metrics(network, test)
    recall = " ".join(f"{digit}:{share:.0%}" for digit, share in enumerate(recall_by_class(network, test)))
    name = f"{recipe.kind.__name__.lower()} version {recipe.number}"
    print(f"{name}: {figures['correct']}/{figures['total']}  {recall}")
    lineage = {
        "data": recipe.data,
        "code": f"models/export/digits.py, seed {recipe.seed}",
        "hyperparameters": {**recipe.shape, "epochs": recipe.epochs, "learning_rate": RATE},
        "metrics": figures,
        "approved_by": recipe.approved_by,
    }
    inputs = test.inputs
    return Version(recipe.number, network, lineage, golden=[[inputs[0:1]], [inputs[1:3]], [inputs[3:7]]])


SMALL = Recipe(1, Perceptron, {"hidden": [32]}, epochs=25, seed=1)
BETTER = Recipe(2, Perceptron, {"hidden": [128, 64]}, epochs=60, seed=2)
WRONG = Recipe(
    3,
    Perceptron,
    {"hidden": [128, 64]},
    epochs=60,
    seed=3,
    data=DESCRIPTION + "; labels of a second annotator, who read faint 8 as 3 and faint 9 as 4",
    approved_by="nobody: wrong on purpose, for shadows and canaries to find",
)
CONVOLUTIONAL = Recipe(1, Convolutional, {"channels": 32}, epochs=25, seed=0)


def main(models: Path) -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    rows, test = load_split()
    write_csv(test, models / "digits_test.csv")
    write_model(
        models / "repository" / "digits",
        # Version 3 lies there unloaded until somebody asks for it.
        signature("handwritten digits, a multilayer perceptron", {"policy": "specific", "specific": [1, 2]}),
        [build(SMALL, rows, test), build(BETTER, rows, test), build(WRONG, misread(rows), test)],
    )
    write_model(
        models / "repository" / "digits_cnn",
        signature("handwritten digits, a convolutional network", {"policy": "latest", "latest": 1}),
        [build(CONVOLUTIONAL, rows, test)],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
