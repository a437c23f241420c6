"""From calls to metrics: recorded, told what they should have been, replayed, held against that."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc

import harness
from calls import grpc_inputs
from replayed import CLAMPED, Recorded
from test_digits import LABELS, PIXELS, promised

CLASSES = ["cat", "dog", "cow"]
COLUMNS = [
    "prediction_id", "caller_id", "item", "label_text", "label_number", "reward", "event_time",
]  # fmt: skip


def prepare(repository: Path) -> None:
    """A model of scores and one of numbers, and others that bound what is above one."""
    labels = f"labels = {CLASSES}\n"
    for name, more in [("animals", labels), ("prices", "")]:
        harness.write_identity(repository, "FP32", name=name, more=more)
        harness.write_identity(repository, "FP32", name=f"{name}_mended", more=more + CLAMPED)


def mended(values: np.ndarray) -> np.ndarray:
    """What the other version answers."""
    return np.minimum(values, 1)


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    """A gateway that records."""
    running = Recorded(tmp_path, prepare=prepare)
    yield running
    running.gateway.stop()


def ask(running: Recorded, model: str, calls: list[np.ndarray], **options: str) -> list[str]:
    """Asks for predictions, each with an id of its own; returns those of the predictions."""
    ids = []
    with tritonclient.grpc.InferenceServerClient(running.gateway.grpc) as client:
        name = "pixels" if model == "digits" else "x"
        for number, values in enumerate(calls):
            inputs = grpc_inputs({name: values})
            answer = client.infer(model, inputs, request_id=f"{model}-{number}", **options)
            ids.append(answer.get_response().parameters["prediction_id"].string_param)
    return ids


def write(file: Path, lines: list[dict[str, Any]]) -> None:
    """Writes feedback as CSV."""
    with file.open("w", newline="") as out:
        table = csv.DictWriter(out, COLUMNS)
        table.writeheader()
        table.writerows(lines)


def confusion(metrics: Any, side: str) -> dict[str, Counter[str]]:
    """Answers by label, of a report."""
    return {
        line["label"]: Counter({given["answer"]: given["items"] for given in line[side]})
        for line in metrics["confusion"]
    }


def test_labels_that_were_sent_judge_recorded_and_replayed_classes(recorded: Recorded) -> None:
    """Told by either id, of an item or of a whole call, as text or number; the latest holds."""
    rng = np.random.default_rng(5)
    calls = [rng.normal(0.5, 1, (1 + n % 4, 3)).astype(np.float32) for n in range(60)]
    ids = ask(recorded, "animals", calls)
    lines: list[dict[str, Any]] = []
    known: list[tuple[str, str, str]] = []
    rewards: list[float] = []
    for number, (prediction, scores) in enumerate(zip(ids, calls)):
        if number % 5 == 4:
            continue
        by_caller = {"caller_id": f"animals-{number}"}
        name = by_caller if number % 3 == 0 else {"prediction_id": prediction}
        truth = rng.integers(0, 3, len(scores))
        if number % 4 == 0:
            # One item: what is said of the call is said of it.
            said = [{"label_number": int(truth[0]), "reward": number / 8}]
            rewards.append(number / 8)
        else:
            said = [{"item": item, "label_text": CLASSES[of]} for item, of in enumerate(truth)]
        if number % 7 == 0:
            wrong = {"item": 0, "label_text": "cow", "event_time": "2026-01-01T00:00:00Z"}
            said.append(wrong)
        lines += [name | one for one in said]
        recorded_as, replayed_as = scores.argmax(1), mended(scores).argmax(1)
        classes = zip(truth, recorded_as, replayed_as)
        known += [(CLASSES[a], CLASSES[b], CLASSES[c]) for a, b, c in classes]
    lines.append({"caller_id": "nobody", "label_text": "cat"})
    file = recorded.folder / "told.csv"
    write(file, lines)
    sent = recorded.send(file)
    assert (sent["sent"], sent["outcomes"]) == (len(lines), {"stored": len(lines)})
    asked = ("--model", "animals_mended", "--recorded-model", "animals")
    while_it_runs = recorded.replay(*asked)["metrics"]
    recorded.gateway.stop()
    metrics = recorded.replay(*asked)["metrics"]
    assert metrics == while_it_runs
    assert (metrics["output"], metrics["labelled_items"]) == ("y", len(known))
    right = {
        "recorded": sum(label == was for label, was, _ in known),
        "replayed": sum(label == now for label, _, now in known),
    }
    assert right["recorded"] != right["replayed"], "the two can be told apart"
    for place, side in enumerate(["recorded", "replayed"], start=1):
        accuracy = metrics["accuracy"][side]
        assert (accuracy["count"], accuracy["of"]) == (right[side], len(known))
        assert accuracy["share"] == pytest.approx(right[side] / len(known))
        by_label = {name: [one[place] for one in known if one[0] == name] for name in CLASSES}
        assert confusion(metrics, side) == {name: Counter(by_label[name]) for name in CLASSES}
    assert metrics["reward"]["items"] == len(rewards)
    assert metrics["reward"]["mean"] == pytest.approx(np.mean(rewards))
    shown = recorded.run(*asked).stdout
    percents = [f"{100 * right[side] / len(known):.1f} %" for side in ("recorded", "replayed")]
    [line] = [line for line in shown.splitlines() if line.startswith("  accuracy")]
    assert all(percent in line for percent in percents) and line.endswith(str(len(known))), shown
    assert f"{len(known)} labelled items, against 'y'" in shown, shown
    assert recorded.replay(*asked, "--no-labels")["metrics"] is None


def test_numbers_that_were_sent_give_mean_absolute_errors(recorded: Recorded) -> None:
    """Of both answers; the reward of one that was never given is not known."""
    rng = np.random.default_rng(6)
    calls = [rng.normal(0.5, 1, (1, 1)).astype(np.float32) for _ in range(50)]
    ids = ask(recorded, "prices", calls)
    truth = rng.normal(0.5, 1, len(ids))
    lines = [
        {"prediction_id": prediction, "label_number": float(label), "reward": 1 + n % 2}
        for n, (prediction, label) in enumerate(zip(ids, truth))
    ]
    file = recorded.folder / "told.csv"
    write(file, lines)
    assert recorded.send(file)["outcomes"] == {"stored": len(lines)}
    recorded.gateway.stop()
    metrics = recorded.replay("--model", "prices_mended", "--recorded-model", "prices")["metrics"]
    answers = np.array([call[0, 0] for call in calls], np.float64)
    errors = metrics["mean_absolute_error"]
    assert errors["items"] == len(ids) and metrics["accuracy"] is None
    assert errors["recorded"] == pytest.approx(np.abs(answers - truth).mean())
    assert errors["replayed"] == pytest.approx(np.abs(mended(answers) - truth).mean())
    same = [1 + n % 2 for n, value in enumerate(answers) if value <= 1]
    assert 0 < len(same) < len(ids)
    reward = metrics["reward"]
    assert (reward["items"], reward["mean"]) == (len(ids), 1.5)
    assert reward["same_items"] == len(same)
    assert reward["mean_where_same"] == pytest.approx(np.mean(same))


def test_more_feedback_than_memory_is_to_hold_is_refused_by_name(recorded: Recorded) -> None:
    ids = ask(recorded, "animals", [np.eye(3, dtype=np.float32)[:1]] * 5)
    file = recorded.folder / "told.csv"
    write(file, [{"prediction_id": prediction, "label_text": "cat"} for prediction in ids])
    recorded.send(file)
    recorded.gateway.stop()
    assert recorded.replay("--model", "animals", "--most", "5")["metrics"]["labelled_items"] == 5
    refused = recorded.run("--model", "animals", "--most", "4")
    assert refused.returncode == 1 and refused.stdout == "", refused
    assert "--most takes more" in refused.stderr and "more feedback than 4" in refused.stderr
    assert recorded.replay("--model", "animals", "--no-labels")["sameness"]["calls"] == 5


def test_labels_of_held_out_digits_tell_the_version_that_reads_some_wrongly(tmp_path: Path) -> None:
    """As many right answers as the lineage of each version says. Needs libtorch."""
    running = Recorded(tmp_path, "", "digits")
    calls = [PIXELS[begin : begin + 7] for begin in range(0, len(PIXELS), 7)]
    ids = ask(running, "digits", calls, model_version="2")
    lines = [
        {"prediction_id": ids[place // 7], "item": place % 7, "label_number": int(label)}
        for place, label in enumerate(LABELS)
    ]
    file = tmp_path / "told.csv"
    write(file, lines)
    assert running.send(file)["sent"] == len(LABELS) == 450
    running.gateway.stop()
    asked = ("--model", "digits", "--version", "3", "--recorded-version", "2")
    accuracy = running.replay(*asked)["metrics"]["accuracy"]
    right = [accuracy[side]["count"] for side in ("recorded", "replayed")]
    assert right == [promised("digits", "2"), promised("digits", "3")] == [438, 416]
    shown = running.run(*asked).stdout
    [line] = [line for line in shown.splitlines() if line.startswith("  accuracy")]
    assert "97.3 %" in line and "92.4 %" in line and line.endswith("450"), shown
