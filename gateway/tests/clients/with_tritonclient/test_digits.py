"""The example models recognise exactly as many held-out digits as their lineage says."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from calls import Caller
from harness import MODELS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings this one
    import tomli as tomllib  # type: ignore[no-redef]


def held_out() -> tuple[np.ndarray, np.ndarray]:
    """Pixels from 0 to 1, and labels."""
    with (MODELS / "digits_test.csv").open() as file:
        rows = np.array(list(csv.reader(file))[1:], np.float32)
    return rows[:, 1:] / 16, rows[:, 0].astype(int)


PIXELS, LABELS = held_out()
ROUTES = [("digits", "1"), ("digits", "2"), ("digits_cnn", "1")]


def promised(model: str, version: str) -> int:
    """Right answers that the manifest claims, of all 450."""
    manifest = tomllib.loads((MODELS / "repository" / model / "model.toml").read_text())
    metrics = manifest["version"][version]["lineage"]["metrics"]
    assert metrics["total"] == len(LABELS) == 450
    return int(metrics["correct"])


@pytest.mark.parametrize(("model", "version"), ROUTES)
def test_batches_of_64_reach_the_promised_accuracy(
    caller: Caller, model: str, version: str
) -> None:
    correct = 0
    for begin in range(0, len(PIXELS), 64):
        batch = PIXELS[begin : begin + 64]
        answer = caller.infer(model, {"pixels": batch}, model_version=version)
        assert (answer.model, answer.version) == (model, version)
        correct += int((answer["logits"].argmax(1) == LABELS[begin : begin + 64]).sum())
    assert correct == promised(model, version)


def correct_alone(caller: Caller, binary: bool) -> int:
    """Right answers when every digit is asked for on its own."""
    options = {"outputs": ["logits"], "binary_in": binary, "binary_out": binary}
    answers = (caller.infer("digits", {"pixels": row[None]}, **options) for row in PIXELS)
    return sum(int(a["logits"][0].argmax() == label) for a, label in zip(answers, LABELS))


def test_single_rows_reach_it_too(caller: Caller) -> None:
    assert correct_alone(caller, binary=True) == promised("digits", "2")


def test_single_rows_as_json_reach_it_too(http_caller: Caller) -> None:
    assert correct_alone(http_caller, binary=False) == promised("digits", "2")


def test_a_single_row_equals_its_row_of_a_batch(caller: Caller) -> None:
    for model, version in ROUTES:
        batch = caller.infer(model, {"pixels": PIXELS[:64]}, model_version=version)["logits"]
        for row in (0, 31, 63):
            pixels = PIXELS[row : row + 1]
            alone = caller.infer(model, {"pixels": pixels}, model_version=version)["logits"]
            scale = float(np.abs(alone).max())
            np.testing.assert_allclose(alone[0], batch[row], rtol=0, atol=1e-5 * scale)


def test_classification_names_the_digit(caller: Caller) -> None:
    answer = caller.infer("digits_cnn", {"pixels": PIXELS[:64]}, outputs=["logits"], classes=1)
    named = [text.decode().split(":")[2] for text in answer["logits"][:, 0]]
    best = caller.infer("digits_cnn", {"pixels": PIXELS[:64]})["logits"].argmax(1)
    assert [int(name) for name in named] == best.tolist()
