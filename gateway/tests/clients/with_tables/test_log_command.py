"""`penstock log` on the folder of a log, beside the gateway that writes it and after it ended."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filled
import harness
import pyarrow.parquet as parquet
import pytest

CALLS, ITEMS = 20, 4


class Rig:
    """A gateway with a log, and commands on it."""

    def __init__(self, folder: Path, segment_age: str) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        harness.write_identity(self.repository, "FP32", name="numbers")
        self.settings = (
            f'[prediction_log]\npath = "{folder}/log"\nguarantee = "durable"\n'
            f'segment_age = "{segment_age}"\nmin_free = "0B"\n'
        )
        self.log = folder / "log"
        self.start(folder)

    def start(self, folder: Path) -> None:
        """Starts the gateway, on the same log perhaps; its own files are in `folder`."""
        self.gateway = harness.start(folder, self.repository, self.settings)
        self.caller = filled.Caller(self.gateway)

    def stop(self) -> None:
        """Ends the gateway in order."""
        self.caller.close()
        self.gateway.stop()

    def call(self, calls: int) -> None:
        """Makes calls of four items."""
        for call in range(calls):
            data = filled.floats([[call, item] for item in range(ITEMS)])
            status, answer = self.caller.call("numbers", {"x": ("FP32", [ITEMS, 2], data)})
            assert status == 200, answer

    def run(self, *words: str, path: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs a command on the folder of the log."""
        where = ["--path", str(self.log)] if path else []
        return subprocess.run(
            [harness.gateway_binary(), "log", *words, *where],
            capture_output=True,
            text=True,
            timeout=60,
        )

    def done(self, *words: str, path: bool = True) -> str:
        """What a command prints that is carried out; it says nothing else."""
        done = self.run(*words, path=path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    def lines(self, *words: str) -> list[dict[str, str]]:
        """Exported lines."""
        text = self.done("export", "--format", "csv", *words)
        return list(csv.DictReader(io.StringIO(text)))

    def stats(self) -> Any:
        """What the log holds."""
        return json.loads(self.done("stats", "--json"))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    """A log of two segments' files whose gateway has ended."""
    rig = Rig(tmp_path_factory.mktemp("ended"), "300ms")
    for _ in range(2):
        rig.call(CALLS // 2)
        harness.wait_until(lambda: filled.is_converted(rig.gateway), 150)
    rig.caller.close()
    rig.gateway.stop()
    return rig


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Rig]:
    """A gateway whose segment stays open."""
    rig = Rig(tmp_path, "1h")
    yield rig
    rig.caller.close()
    rig.gateway.stop()


def test_a_log_is_read_while_it_is_written(live: Rig) -> None:
    live.call(CALLS)
    assert len(live.lines()) == CALLS * ITEMS
    waiting = live.stats()["waiting"]
    assert waiting["segments"] == 1 and waiting["bytes"] > 0
    assert "segments: 1 with 20 calls  files: 0 with 0 lines" in live.done("verify")
    live.call(1)
    assert len(live.lines()) == (CALLS + 1) * ITEMS


def test_each_row_is_read_once_whatever_the_gateway_does_with_its_segments(tmp_path: Path) -> None:
    rig = Rig(tmp_path, "50ms")
    answered, is_over = [0], threading.Event()

    def go_on() -> None:
        while not is_over.is_set():
            rig.call(1)
            answered[0] += 1

    with ThreadPoolExecutor(1) as threads:
        calls = threads.submit(go_on)
        try:
            rounds, patience = 0, time.monotonic() + 150
            # Conversion yields to all else on the machine, for a minute at most.
            while rounds < 8 or len(list(rig.log.rglob("*.parquet"))) < 2:
                assert time.monotonic() < patience, "nothing is converted"
                rounds += 1
                before = answered[0]
                lines = [(line["prediction_id"], line["item"]) for line in rig.lines()]
                assert len(set(lines)) == len(lines)
                # Its calls are in the log before they are answered.
                assert len(lines) >= before * ITEMS
                rig.done("verify")
        finally:
            is_over.set()
        calls.result()
    rig.caller.close()
    rig.gateway.stop()


def test_what_an_orderly_end_leaves_in_segments_is_read_and_becomes_files_at_the_next_start(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path, "1h")
    # No file can be made here while this is one.
    obstacle = rig.log / "files"
    obstacle.rmdir()
    obstacle.touch()
    rig.call(CALLS)
    rig.stop()
    segments = rig.log / "segments"
    assert [path.suffix for path in segments.iterdir()] == [".segment"], "closed, and not converted"
    obstacle.unlink()
    lines = rig.lines()
    assert len(lines) == CALLS * ITEMS
    again = tmp_path / "again"
    again.mkdir()
    rig.start(again)
    harness.wait_until(lambda: not list(segments.glob("*.segment")), 150)
    assert len(list(rig.log.rglob("*.parquet"))) == 1
    key = lambda line: (line["prediction_id"], line["item"])
    assert sorted(rig.lines(), key=key) == sorted(lines, key=key)
    # One that is open is read beside files.
    rig.call(1)
    assert len(rig.lines()) == (CALLS + 1) * ITEMS
    rig.stop()
    assert len(rig.lines()) == (CALLS + 1) * ITEMS
    rig.done("verify")


def test_stats_say_what_files_hold(ended: Rig) -> None:
    partitions = ended.stats()["partitions"]
    assert {(of["model"], of["version"]) for of in partitions} == {("numbers", "1")}
    assert sum(of["lines"] for of in partitions) == CALLS * ITEMS
    sizes = [path.stat().st_size for path in ended.log.rglob("*.parquet")]
    assert sum(of["bytes"] for of in partitions) == sum(sizes)
    heading, line, *_ = ended.done("stats").splitlines()
    assert heading.split()[:4] == ["MODEL", "VERSION", "FILES", "LINES"]
    assert line.split()[:4] == ["numbers", "1", str(len(sizes)), str(CALLS * ITEMS)]


def test_the_configuration_says_where_the_log_is(ended: Rig) -> None:
    config = str(ended.folder / "penstock.toml")
    assert ended.done("stats", "--config", config, path=False) == ended.done("stats")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_every_format_has_the_same_lines(ended: Rig, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    words = ["export", "--columns", "item,prediction_id,version", "--out", str(out)]
    assert ended.done(*words) == ""
    text = out.read_bytes()
    if name == "rows.csv":
        rows = list(csv.DictReader(io.StringIO(text.decode())))
    elif name == "rows.jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
    else:
        rows = parquet.read_table(out).to_pylist()
    assert list(rows[0]) == ["item", "prediction_id", "version"]
    expected = sorted((line["prediction_id"], line["item"]) for line in ended.lines())
    assert sorted((row["prediction_id"], str(row["item"])) for row in rows) == expected
    assert len(set(expected)) == CALLS * ITEMS
    # It is not written over, unless somebody says so.
    again = ended.run(*words)
    assert again.returncode == 1 and f"{out} exists: --force overwrites it" in again.stderr
    assert out.read_bytes() == text
    ended.done(*words, "--force")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_range_of_time_and_a_version_are_chosen(ended: Rig) -> None:
    times = sorted({line["arrived"] for line in ended.lines()})
    middle = times[len(times) // 2]
    before, after = ended.lines("--to", middle), ended.lines("--from", middle)
    assert all(line["arrived"] < middle for line in before)
    assert len(before) + len(after) == CALLS * ITEMS and before and after
    assert len(ended.lines("--from", "-1h", "--model", "numbers")) == CALLS * ITEMS
    assert ended.lines("--to=-1h") == []
    assert ended.lines("--version", "2") == []
    for words, heading in [
        (["--to=-1h", "--columns", "item,in_x"], "item,in_x"),
        (["--model", "other", "--columns", "item,in_what"], "item,in_what"),
        (["--model", "other"], "model,version,prediction_id,item,"),
    ]:
        done = ended.run("export", "--format", "csv", *words)
        assert done.returncode == 0 and done.stdout.startswith(heading), done
        assert done.stdout.count("\n") == 1, "a line of names and no other"
    wrong = ended.run("export", "--format", "csv", "--columns", "item,itme")
    assert wrong.returncode == 1
    assert "--columns: no row has 'itme'; there are model, version, " in wrong.stderr
    wrong = ended.run("export", "--from", "-1h", "--to", "-2h", "--format", "csv")
    assert wrong.returncode == 1 and "is not before --to" in wrong.stderr
    wrong = ended.run("export", "--out", "rows.txt")
    assert wrong.returncode == 1 and "say what to write: --format csv" in wrong.stderr


def test_progress_is_told_to_a_terminal_alone(ended: Rig, tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    words = [str(harness.gateway_binary()), "log", "export", "--path", str(ended.log)]
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "rows.csv")], stderr=follower, stdout=follower, timeout=60
    )
    os.close(follower)
    assert done.returncode == 0
    assert f"rows.csv: {CALLS * ITEMS} lines" in os.read(leader, 4096).decode()
    os.close(leader)


def test_a_reader_that_has_enough_is_no_failure(ended: Rig) -> None:
    words = [
        str(harness.gateway_binary()),
        "log",
        "export",
        "--format",
        "csv",
        "--path",
        str(ended.log),
    ]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(60) == 0, process.stderr.read()
    process.stderr.close()


def test_what_is_damaged_is_named_and_is_a_failure(ended: Rig, live: Rig) -> None:
    assert "all that is here can be read" in ended.done("verify")
    path = next(ended.log.rglob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    found = ended.run("verify")
    assert found.returncode == 1
    assert found.stderr == f"{path}: it does not match its checksum\n"
    assert "1 place is damaged" in found.stdout
    told = json.loads(ended.run("verify", "--json").stdout)
    assert told["is_whole"] is False
    assert [file["path"] for file in told["files"] if file["problem"]] == [str(path)]
    path.write_bytes(whole)
    ended.done("verify")

    live.call(CALLS)
    [segment] = (live.log / "segments").iterdir()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    # The gateway's own segment is left alone.
    copy = live.folder / "copy"
    (copy / "segments").mkdir(parents=True)
    (copy / "segments" / "00000007.segment").write_bytes(data)
    found = live.run("verify", "--path", str(copy), path=False)
    assert found.returncode == 1
    assert (
        f"{copy}/segments/00000007.segment: " in found.stderr and "bytes from byte" in found.stderr
    )
    told = json.loads(live.run("verify", "--json", "--path", str(copy), path=False).stdout)
    assert told["segments"][0]["gaps"][0]["length"] > 0 and told["segments"][0]["calls"] < CALLS
