"""Faults of the machine under load: no wrong answer, no hang, and recovery without a hand.

Faults of engines, certificates, Redis and key servers are with the tests of those.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

import wire
from harness import (
    add_to_manifest,
    gateway_binary,
    metric,
    wait_until,
    write_identity,
)
from load import MODEL, StartOn, is_ready, states, under_load, wait_for_answers

# Every step of every call goes to the log: thousands of lines a second.
CHATTY = '[log]\nlevel = "trace"\n'
ROW = {"inputs": [wire.tensor("FP32", [1, 2], [1.0, 2.0])]}


def test_a_stop_under_load_fails_no_call_of_those_who_mind_readiness(start_on: StartOn) -> None:
    """As behind a load balancer, which sends no more once the gateway is not ready."""
    gateway = start_on('[server]\nstop_delay = "2s"\n')
    with under_load(gateway, 8) as book:
        wait_for_answers(book, 100)
        gateway.begin_stop()
        wait_until(lambda: not is_ready(gateway), 2)
        wait_for_answers(book)
    gateway.stop()
    assert not book.failed, book.failed[:3]


def test_a_stop_under_load_answers_a_call_whole_or_not_at_all(start_on: StartOn) -> None:
    """Callers that do not look see closed doors, and no refusal, once it has begun to drain."""
    gateway = start_on()
    with under_load(gateway, 8) as book:
        wait_for_answers(book, 100)
        gateway.begin_stop()
        gateway.stop()
    closed = (
        "RemoteDisconnected",
        "ConnectionResetError",
        "ConnectionRefusedError",
        "BrokenPipeError",
    )
    allowed = (*(f"http: {name}" for name in closed), "grpc: UNAVAILABLE")
    unexpected = [text for text in book.failed if not text.startswith(allowed)]
    assert not unexpected, unexpected[:3]


def test_a_log_that_nobody_reads_holds_up_nobody(start_on: StartOn) -> None:
    reader, writer = os.pipe()
    gateway = start_on(CHATTY, stderr=writer)
    os.close(writer)
    with under_load(gateway) as book:
        wait_until(lambda: metric(gateway, "penstock_log_lines_lost_total") > 0, 60)
        wait_for_answers(book, 200)
        # Somebody reads again: the log goes on, and says that something is missing.
        read = b""
        deadline = time.monotonic() + 60
        while b"lines of the log were lost" not in read[-(1 << 20) :]:
            assert time.monotonic() < deadline, read[-2000:]
            read += os.read(reader, 1 << 20)
        wait_for_answers(book)
        reading = threading.Thread(target=drain, args=(reader,))
        reading.start()
    assert not book.failed, book.failed[:3]
    gateway.stop()
    reading.join()


def drain(reader: int) -> None:
    """Reads until the other side is closed."""
    while os.read(reader, 1 << 20):
        pass
    os.close(reader)


@pytest.mark.parametrize("signals", [1, 2])
def test_a_log_that_nobody_reads_does_not_hold_up_the_end(start_on: StartOn, signals: int) -> None:
    reader, writer = os.pipe()
    gateway = start_on(CHATTY + '[server]\nstop_delay = "10s"\n' * (signals - 1), stderr=writer)
    os.close(writer)
    with under_load(gateway) as book:
        wait_until(lambda: metric(gateway, "penstock_log_lines_lost_total") > 0, 60)
    assert not book.failed, book.failed[:3]
    begun = time.monotonic()
    gateway.begin_stop()
    if signals == 2:
        wait_until(lambda: not is_ready(gateway))
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(5) == 1
        gateway.ended = True
    else:
        gateway.stop()
    assert time.monotonic() - begun < 6
    os.close(reader)


def test_a_full_disk_behind_the_log_fails_nobody(start_on: StartOn) -> None:
    with open("/dev/full", "wb") as full:
        gateway = start_on(CHATTY, stderr=full.fileno())
    with under_load(gateway) as book:
        wait_until(lambda: metric(gateway, "penstock_log_lines_lost_total") > 100, 60)
        wait_for_answers(book, 100)
    assert not book.failed, book.failed[:3]


def test_a_full_disk_behind_the_summary_is_no_reason_to_end(tmp_path: Path) -> None:
    write_identity(tmp_path, "FP32")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    doors = [
        f"--http={address}",
        *(f"--{door}=127.0.0.1:0" for door in ("grpc", "metrics", "admin")),
    ]
    with open("/dev/full", "wb") as full, open(tmp_path / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [gateway_binary(), "serve", *doors, tmp_path], stdout=full, stderr=log
        )

    def answers() -> bool:
        assert process.poll() is None, (tmp_path / "log.txt").read_text()
        try:
            return wire.infer(address, MODEL, ROW).status == 200
        except OSError:
            return False

    try:
        wait_until(answers, 60)
        wait_until(lambda: "cannot print the summary" in (tmp_path / "log.txt").read_text())
        assert wire.infer(address, MODEL, ROW).status == 200
    finally:
        process.terminate()
        assert process.wait(40) == 0


def test_a_model_file_that_is_still_being_written_is_not_served_until_it_is_whole(
    start_on: StartOn, tmp_path: Path
) -> None:
    gateway = start_on(poll="50ms")
    model = tmp_path / "repository" / MODEL
    whole = os.urandom(1 << 20)
    add_to_manifest(model, f'[version.2]\nsha256 = "{hashlib.sha256(whole).hexdigest()}"')
    with under_load(gateway) as book:
        wait_for_answers(book)
        coming = tmp_path / "coming"
        coming.mkdir()
        with (coming / "model.pt").open("wb", buffering=0) as file:
            file.write(whole[: 1 << 19])
            coming.rename(model / "2")
            wait_until(lambda: "SHA-256" in states(gateway).get((MODEL, "2"), ("", ""))[1])
            wait_for_answers(book)
            assert states(gateway)[MODEL, "1"][0] == "READY"
            file.write(whole[1 << 19 :])
        wait_until(lambda: states(gateway)[MODEL, "2"][0] == "READY")
        wait_for_answers(book)
        # Damaged while it serves: what is loaded goes on.
        (model / "2" / "model.pt").write_bytes(b"nothing of it")
        wait_until(lambda: states(gateway)[MODEL, "2"][1] != "")
        wait_for_answers(book)
        assert states(gateway)[MODEL, "2"][0] == "READY"
    assert not book.failed, book.failed[:3]
    assert metric(gateway, "penstock_model_loads_total", model=MODEL, result="failed") >= 2


def test_a_repository_that_goes_away_takes_nothing_with_it(
    start_on: StartOn, tmp_path: Path
) -> None:
    gateway = start_on(poll="50ms")
    repository, away = tmp_path / "repository", tmp_path / "away"
    with under_load(gateway) as book:
        wait_for_answers(book)
        repository.rename(away)
        wait_until(lambda: "cannot read the repository" in gateway.log_text())
        wait_for_answers(book)
        assert is_ready(gateway)
        write_identity(away, "INT8")
        away.rename(repository)
        wait_until(lambda: ("identity_int8", "1") in states(gateway))
        wait_until(lambda: states(gateway)["identity_int8", "1"][0] == "READY")
        wait_for_answers(book)
    assert not book.failed, book.failed[:3]


def test_a_pipe_in_the_place_of_a_manifest_holds_up_no_other_model(
    start_on: StartOn, tmp_path: Path
) -> None:
    gateway = start_on(poll="50ms")
    repository = tmp_path / "repository"
    with under_load(gateway) as book:
        (repository / "pipe" / "1").mkdir(parents=True)
        os.mkfifo(repository / "pipe" / "model.toml")
        wait_until(lambda: "not a regular file" in gateway.log_text())
        write_identity(repository, "INT8")
        wait_until(lambda: states(gateway).get(("identity_int8", "1"), ("", ""))[0] == "READY")
        shutil.rmtree(repository / "pipe")
        wait_for_answers(book)
    assert not book.failed, book.failed[:3]


def test_out_of_descriptors_calls_on_open_connections_go_on_and_new_ones_come_later(
    start_on: StartOn,
) -> None:
    gateway = start_on()
    descriptors = len(os.listdir(f"/proc/{gateway.process.pid}/fd"))
    limit = descriptors + 12
    with under_load(gateway) as book:
        wait_for_answers(book)
        subprocess.run(
            ["prlimit", f"--pid={gateway.process.pid}", f"--nofile={limit}:{limit}"], check=True
        )
        crowd = [wire.connect(gateway.http) for _ in range(40)]
        wait_for_answers(book, 100)
        for connection in crowd:
            connection.close()
        # Nobody had to help: the next connection is accepted.
        wait_until(lambda: wire.infer(gateway.http, MODEL, ROW).status == 200)
    assert not book.failed, book.failed[:3]
