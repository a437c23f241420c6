"""Recorded calls are replayed: through the same version, another one, and a running gateway."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from calls import grpc_inputs, http_inputs
from replayed import CALLS, Recorded

@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    """A gateway that records."""
    running = Recorded(tmp_path)
    yield running
    running.gateway.stop()


def seen(report: Any) -> tuple[int, int, int]:
    """Calls, those that are the same bit for bit, those beyond tolerance."""
    same = report["sameness"]
    return same["calls"], same["identical"], same["beyond_tolerance"]


def causes(report: Any) -> dict[tuple[str, str | None], int]:
    """Calls that were not replayed, by cause and field."""
    found = report["not_replayed"]["causes"]
    return {(one["cause"], one.get("field")): one["calls"] for one in found}


def test_the_same_version_answers_bit_for_bit(recorded: Recorded) -> None:
    """Each of them, whatever number of items it has."""
    recorded.ask()
    recorded.gateway.stop()
    report = recorded.replay("--model", "same", "--version", "1", "--fail-on-difference")
    assert seen(report) == (CALLS, CALLS, 0)
    assert report["sameness"]["had_to_be_identical"] == CALLS
    assert report["sameness"]["not_identical"] == 0
    assert report["not_replayed"] == {"calls": 0, "causes": []}
    assert report["recorded"] == [{"model": "same", "version": "1", "sha256": None, "calls": CALLS}]
    assert report["comparison"]["rows"] == sum(1 + number % 3 for number in range(CALLS))
    shown = recorded.run("--model", "same")
    assert shown.returncode == 0, shown
    assert f"bit for bit         {CALLS}" in shown.stdout, shown.stdout
    assert "0 of 40 that had to be" in shown.stdout, shown.stdout
    none = recorded.replay("--model", "same", "--to", "2020-01-01", "--fail-on-difference", status=1)
    assert seen(none) == (0, 0, 0)


def test_another_version_is_told_apart_with_the_predictions_that_differ(
    recorded: Recorded,
) -> None:
    """Status 1 where that is asked for; what it does not take is named."""
    ids = recorded.ask()
    recorded.gateway.stop()
    asked = ("--model", "clamped", "--recorded-model", "same")
    report = recorded.replay(*asked)
    calls, identical, beyond = seen(report)
    assert calls == CALLS and beyond > 0 and identical + beyond == CALLS, report["sameness"]
    assert report["sameness"]["largest_difference"] > 1
    first = report["sameness"]["first"]
    named = [one["prediction"] for one in first]
    assert len(named) == 20 and named == [one for one in ids if one in named]
    assert first[0]["recorded"] == "same/1" and first[0]["output"] == "y"
    assert report["comparison"]["verdict"] == "differs"
    assert recorded.run(*asked, "--fail-on-difference").returncode == 1
    report = recorded.replay("--model", "whole", "--recorded-model", "same")
    assert seen(report) == (0, 0, 0) and causes(report) == {("schema_differs", "in.x"): CALLS}


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_running_gateway_answers_recorded_calls_and_knows_them(
    recorded: Recorded, scheme: str
) -> None:
    """Its own rows of them are marked, and are not replayed themselves."""
    recorded.ask()
    url = f"{scheme}://{getattr(recorded.gateway, scheme)}"
    asked = ("--model", "same", "--version", "1", "--gateway", url)
    report = recorded.replay(*asked, "--speed", "max", "--max-in-flight", "8")
    assert seen(report) == (CALLS, CALLS, 0), report
    again = recorded.replay(*asked, "--speed", "1000")
    assert seen(again) == (CALLS, CALLS, 0), again
    assert causes(again) == {("replay", None): CALLS}
    recorded.gateway.stop()
    report = recorded.replay("--model", "same", "--recorded-version", "1")
    assert causes(report) == {("replay", None): 2 * CALLS}


def test_what_was_redacted_or_refused_is_named(tmp_path: Path) -> None:
    """Which field, and how many calls."""
    rules = '[[prediction_log.redact]]\nfield = "in.x"\nhow = "drop"\n'
    running = Recorded(tmp_path, rules)
    running.ask(5)
    with tritonclient.http.InferenceServerClient(running.gateway.http) as client:
        wrong = {"x": np.zeros((1, 3), np.float32)}
        with pytest.raises(tritonclient.http.InferenceServerException):
            client.infer("same", http_inputs(wrong))
    running.gateway.stop()
    report = running.replay("--model", "same")
    assert seen(report) == (0, 0, 0)
    assert causes(report) == {("input_redacted", "in.x"): 5, ("refused", None): 1}
    shown = running.run("--model", "same").stdout
    assert "input redacted  in.x   5" in shown, shown


def test_digits_are_replayed_through_the_version_that_reads_some_wrongly(tmp_path: Path) -> None:
    """Version 1 is itself again, within its tolerance; version 3 is not. Needs libtorch."""
    running = Recorded(tmp_path, "", "digits")
    rng = np.random.default_rng(7)
    with tritonclient.grpc.InferenceServerClient(running.gateway.grpc) as client:
        for _ in range(100):
            pixels = rng.random((1, 64), np.float32)
            client.infer("digits", grpc_inputs({"pixels": pixels}), model_version="1")
    running.gateway.stop()
    report = running.replay("--model", "digits", "--version", "1", "--fail-on-difference")
    assert seen(report)[0] == 100 and report["sameness"]["beyond_tolerance"] == 0
    assert report["recorded"][0]["sha256"] == report["target"]["sha256"]
    report = running.replay("--model", "digits", "--version", "3")
    assert seen(report)[0] == 100 and report["sameness"]["beyond_tolerance"] > 0
    [output] = report["comparison"]["outputs"]
    assert output["kind"] == "classes" and output["agreement"]["of"] == 100


def make_deterministic(repository: Path, *models: str) -> None:
    """Has models promise equal bytes for equal calls."""
    for model in models:
        manifest = repository / model / "model.toml"
        promise = "deterministic = true"
        text, changed = re.subn(r'(?m)^graph = "auto"$', promise, manifest.read_text())
        assert changed == 1, text
        manifest.write_text(text)


def ask_for_digits(running: Recorded, models: tuple[str, ...], calls: int) -> None:
    """Asks for digits, 8 calls of 1 to 64 rows at a time, so that what may share a batch does."""
    rng = np.random.default_rng(11)
    sizes = rng.permutation([1 + number % 64 for number in range(calls)])
    asked = [
        (models[number % len(models)], rng.random((rows, 64), np.float32))
        for number, rows in enumerate(sizes)
    ]
    with tritonclient.grpc.InferenceServerClient(running.gateway.grpc) as client:

        def ask(call: tuple[str, np.ndarray]) -> None:
            client.infer(call[0], grpc_inputs({"pixels": call[1]}), model_version="1")

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, asked))


def test_deterministic_digits_are_replayed_bit_for_bit_whatever_their_sizes(tmp_path: Path) -> None:
    """The same version of both digit models; no bit differs. Needs libtorch."""
    models = ("digits", "digits_cnn")
    running = Recorded(
        tmp_path, "", *models, prepare=lambda folder: make_deterministic(folder, *models)
    )
    ask_for_digits(running, models, 256)
    running.gateway.stop()
    for model in models:
        asked = ("--model", model, "--version", "1", "--fail-on-difference")
        report = running.replay(*asked)
        assert seen(report) == (128, 128, 0), report["sameness"]
        same = report["sameness"]
        assert same["had_to_be_identical"] == 128 and same["not_identical"] == 0
        assert same["largest_difference"] == 0 and same["within_tolerance"] == 0
        assert report["recorded"][0]["sha256"] == report["target"]["sha256"] is not None
        assert report["comparison"]["rows"] > 64 * 32
        # How many are asked at a time changes nothing.
        assert seen(running.replay(*asked, "--max-in-flight", "1")) == (128, 128, 0)
