"""The handwritten digits: where they come from, how they are split, how they reach the test file.

1 797 images of 8 x 8 pixels, whole numbers from 0 to 16, bundled with scikit-learn (see ../README.md).
A quarter of them, stratified by label, is held out and never trained on.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

PIXELS = 64
WHITE = 16.0
HELD_OUT = 0.25
SPLIT_SEED = 0
DESCRIPTION = (
    "scikit-learn's bundled digits (UCI Optical Recognition of Handwritten Digits, test part): "
    "1347 rows to train on, 450 held out (stratified, random_state 0); pixels / 16"
)


@dataclass(frozen=True)
class Digits:
    """Raw pixels (rows x 64, whole numbers 0 to 16) and their labels (0 to 9)."""

    pixels: Tensor
    labels: Tensor

    @property
    def inputs(self) -> Tensor:
        """The pixels as the models take them: FP32, 0 to 1."""
        return self.pixels.float() / WHITE

    def __len__(self) -> int:
        return len(self.labels)


def load_split() -> tuple[Digits, Digits]:
    """The rows to train on and the rows held out."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    parts = train_test_split(
        bunch.data.astype("int64"),
        bunch.target.astype("int64"),
        test_size=HELD_OUT,
        random_state=SPLIT_SEED,
        stratify=bunch.target,
    )
    train_x, test_x, train_y, test_y = map(torch.from_numpy, parts)
    return Digits(train_x, train_y), Digits(test_x, test_y)


def write_csv(digits: Digits, path: Path) -> None:
    """One row a digit: its label, then its raw pixels."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", *(f"p{index}" for index in range(PIXELS))])
        for label, pixels in zip(digits.labels.tolist(), digits.pixels.tolist()):
            writer.writerow([label, *pixels])


def read_csv(path: Path) -> Digits:
    """What `write_csv` wrote."""
    with path.open(newline="") as file:
        rows = [[int(value) for value in row] for row in list(csv.reader(file))[1:]]
    table = torch.tensor(rows, dtype=torch.int64)
    return Digits(table[:, 1:], table[:, 0])
