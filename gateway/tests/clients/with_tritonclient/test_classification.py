"""The classification extension: the largest values as text, with index and label."""

from __future__ import annotations

import numpy as np
import pytest

import wire
from calls import INVALID, Caller
from harness import Gateway

PIXELS = np.random.default_rng(3).random((4, 64), dtype=np.float32)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("classes", [1, 3, 10])
def test_the_largest_come_first_with_index_and_label(
    caller: Caller, classes: int, binary: bool
) -> None:
    logits = caller.infer("digits", {"pixels": PIXELS})["logits"]
    answer = caller.infer(
        "digits", {"pixels": PIXELS}, outputs=["logits"], classes=classes, binary_out=binary
    )
    assert answer.datatype("logits") == "BYTES"
    named = answer["logits"]
    assert named.shape == (4, classes)
    for row, texts in zip(logits, named):
        texts = [text.decode() if isinstance(text, bytes) else text for text in texts]
        order = np.argsort(-row, kind="stable")[:classes]
        assert [int(text.split(":")[1]) for text in texts] == order.tolist()
        for text, index in zip(texts, order):
            value, _, label = text.split(":")
            assert float(value) == pytest.approx(float(row[index]), abs=1e-4)
            assert label == str(index)


def test_more_classes_than_there_are_means_all(caller: Caller) -> None:
    answer = caller.infer("digits", {"pixels": PIXELS}, outputs=["logits"], classes=99)
    assert answer["logits"].shape == (4, 10)


def test_outputs_without_labels_and_of_integers_have_two_parts(caller: Caller) -> None:
    x = np.array([[-5, 7, 0]], np.float32)
    answer = caller.infer("dict_out", {"x": x}, outputs=["sign"], classes=2)
    assert answer["sign"].tolist() == [[b"1:1", b"0:2"]]


def test_a_model_without_batching_gives_one_list(caller: Caller) -> None:
    x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    answer = caller.infer("transpose", {"x": x}, outputs=["y"], classes=1)
    assert answer["y"].shape == (1,)
    assert answer["y"][0] == b"6.000000:5"


def test_text_has_no_classes(caller: Caller) -> None:
    x = np.array([[b"a", b"b"]], np.object_)
    assert "BYTES" in caller.refused(INVALID, "identity_bytes", {"x": x}, outputs=["y"], classes=1)


@pytest.mark.parametrize("classes", [0, -1, 1.5, "3", True])
def test_numbers_of_classes_that_are_none_are_refused(gateway: Gateway, classes: object) -> None:
    body = {
        "inputs": [wire.tensor("FP32", [1, 64], [0.0] * 64, "pixels")],
        "outputs": [{"name": "logits", "parameters": {"classification": classes}}],
    }
    assert wire.infer(gateway.http, "digits", body).status == 400
