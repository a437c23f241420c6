"""An engine that is kept busy, so that calls wait for it and batches form."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import wire
from harness import Gateway, running, wait_until, waiting

# One engine thread: whoever has it keeps it from all others.
ONE_THREAD = "[engine]\ncpu_threads = 1\n"
# Turns of the model `slow`: some seconds, to set up everything that has to wait meanwhile.
LONG = 60_000_000


def loops(turns: int, rows: int = 1) -> dict[str, Any]:
    """The body of a call of `slow` over HTTP."""
    return {"inputs": [wire.tensor("INT64", [rows, 1], [turns] * rows, "loops")]}


@contextmanager
def busy(gateway: Gateway, turns: int = LONG) -> Iterator[Callable[[], bool]]:
    """Keeps the engine busy with `slow`; what it gives says whether it still is."""
    answers: list[wire.Response] = []
    caller = threading.Thread(
        target=lambda: answers.append(wire.infer(gateway.http, "slow", loops(turns)))
    )
    caller.start()
    try:
        wait_until(lambda: running(gateway, "slow") == 1)
        yield lambda: not answers
    finally:
        caller.join()
    assert answers[0].status == 200, answers


def wait_for_queue(gateway: Gateway, model: str, calls: int, is_busy: Callable[[], bool]) -> None:
    """Waits until so many calls of a model wait, which is before the engine is free again."""
    wait_until(lambda: not is_busy() or waiting(gateway, model) == calls)
    assert is_busy() and waiting(gateway, model) == calls, (calls, gateway.log_text())


def in_threads(works: list[Callable[[], Any]]) -> tuple[list[threading.Thread], list[Any]]:
    """Starts each in a thread of its own; the list is filled as they end, errors included."""
    ended: list[Any] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            ended.append(work())
        except Exception as error:
            ended.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    return threads, ended
