"""Everything that goes wrong, again and again, while calls go on (`make soak`)."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import wire
from harness import Gateway, metric, wait_until, write_identity
from hostile import SEEDS, draw_bytes, send, still_serves
from load import MODEL, Book, StartOn, is_ready, states, under_load, wait_for_answers

SECONDS = float(os.environ.get("PENSTOCK_SOAK_SECONDS", "120"))
# Beyond the first rounds, which fill caches and pools.
MAX_GROWTH = 64 << 20
MAX_DESCRIPTORS = 16


class Reader:
    """Reads the log from a pipe, and stops reading for a while when told to."""

    def __init__(self) -> None:
        self.end, self.writer = os.pipe()
        self.reads = threading.Event()
        self.reads.set()
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        while os.read(self.end, 1 << 20):
            self.reads.wait()
        os.close(self.end)


class Mix:
    """The faults; each is over when its method returns, and everything serves again."""

    def __init__(self, gateway: Gateway, reader: Reader, seed: int) -> None:
        self.gateway, self.reader = gateway, reader
        self.repository = gateway.repository
        self.draw = random.Random(seed)
        self.version = 1
        self.faults: list[Callable[[], None]] = [
            self.hostile_bytes, self.broken_manifest, self.new_version, self.no_repository,
            self.unread_log, self.crowd, self.refused_calls, self.callers_that_leave,
            self.pipe_for_a_manifest,
        ]  # fmt: skip

    def state(self, model: str, version: int) -> tuple[str, str]:
        return states(self.gateway).get((model, str(version)), ("", ""))

    def hostile_bytes(self) -> None:
        for _ in range(10):
            door = self.draw.choice(sorted(SEEDS))
            send(getattr(self.gateway, door), draw_bytes(door, self.draw))

    def broken_manifest(self) -> None:
        manifest = self.repository / MODEL / "model.toml"
        text = manifest.read_text()
        manifest.write_text(text[: self.draw.randrange(len(text) // 2)])
        # What is wrong with a model as a whole stands in an entry without a version.
        wait_until(lambda: (MODEL, "") in states(self.gateway))
        manifest.write_text(text)
        wait_until(lambda: (MODEL, "") not in states(self.gateway))
        assert self.state(MODEL, self.version) == ("READY", "")

    def new_version(self) -> None:
        self.version += 1
        model = self.repository / MODEL
        (model / str(self.version)).mkdir()
        wait_until(lambda: self.state(MODEL, self.version)[0] == "READY")
        shutil.rmtree(model / str(self.version - 1))

    def no_repository(self) -> None:
        away = self.repository.with_name("away")
        self.repository.rename(away)
        time.sleep(0.3)
        away.rename(self.repository)

    def unread_log(self) -> None:
        self.reader.reads.clear()
        time.sleep(0.5)
        self.reader.reads.set()

    def crowd(self) -> None:
        connections = [wire.connect(self.gateway.http) for _ in range(100)]
        connections += [wire.connect(self.gateway.grpc) for _ in range(100)]
        for connection in connections:
            connection.close()

    def refused_calls(self) -> None:
        short = {"inputs": [wire.tensor("FP32", [1, 2], [1.0])]}
        whole = {"inputs": [wire.tensor("FP32", [1, 2], [1.0, 2.0])]}
        for _ in range(50):
            assert wire.infer(self.gateway.http, MODEL, short).status == 400
            assert wire.infer(self.gateway.http, "nobody", whole).status == 404

    def callers_that_leave(self) -> None:
        head = f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{"
        for _ in range(50):
            with wire.connect(self.gateway.http) as connection:
                connection.sendall(head.encode())

    def pipe_for_a_manifest(self) -> None:
        folder = self.repository / "pipe"
        (folder / "1").mkdir(parents=True)
        os.mkfifo(folder / "model.toml")
        time.sleep(0.2)
        shutil.rmtree(folder)
        write_identity(self.repository, "INT8", name="after")
        wait_until(lambda: self.state("after", 1)[0] == "READY")
        shutil.rmtree(self.repository / "after")
        wait_until(lambda: self.state("after", 1)[0] != "READY")

    def round(self, book: Book) -> None:
        """Every fault once, in another order each time."""
        for fault in self.draw.sample(self.faults, len(self.faults)):
            fault()
            wait_for_answers(book)
        still_serves(self.gateway)

    def size(self) -> tuple[float, int]:
        """Memory and descriptors."""
        descriptors = len(list(Path(f"/proc/{self.gateway.process.pid}/fd").iterdir()))
        return metric(self.gateway, "process_resident_memory_bytes"), descriptors


@pytest.mark.soak
def test_a_mix_of_faults_fails_no_call_and_leaves_nothing_behind(start_on: StartOn) -> None:
    reader = Reader()
    gateway = start_on('[log]\nlevel = "debug"\n', poll="50ms", stderr=reader.writer)
    os.close(reader.writer)
    mix = Mix(gateway, reader, seed=1)
    ends = time.monotonic() + SECONDS
    rounds = 0
    with under_load(gateway, 8) as book:
        for _ in range(3):
            mix.round(book)
        memory, descriptors = mix.size()
        while time.monotonic() < ends or rounds == 0:
            mix.round(book)
            rounds += 1
        assert is_ready(gateway)
        grown, more = mix.size()
    print(f"{rounds} rounds, {book.answered} answers, {(grown - memory) / (1 << 20):+.1f} MiB")
    assert not book.failed, (len(book.failed), book.failed[:3])
    assert grown - memory < MAX_GROWTH
    assert more - descriptors < MAX_DESCRIPTORS
    gateway.stop()
    reader.thread.join()
