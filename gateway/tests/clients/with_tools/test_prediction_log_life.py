"""The prediction log through the life of a gateway: orderly ends under load, damage on the disk, a
clock that goes backwards, and models whose tensors change."""

from __future__ import annotations

import http.client
import os
import struct
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timezone
from pathlib import Path
from typing import Any

import harness
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest
import wire

MODEL = "identity_fp32"
BODY = {"inputs": [wire.tensor("FP32", [1, 2], [1.5, -2.0])]}
# A library that has the clock, and the disk, be other than they are.
SHIM = harness.ROOT / "loadtest" / "src" / "predictions" / "shim.c"
DAY = 86400


class Life:
    """Gateways on one log, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.repository = folder / "repository"
        self.repository.mkdir()
        harness.write_identity(self.repository, "FP32")
        self.running: list[harness.Gateway] = []
        self.starts = 0

    def start(self, guarantee: str, more: str = "", **options: Any) -> harness.Gateway:
        """Starts the next gateway."""
        self.starts += 1
        own = self.folder / f"gateway-{self.starts}"
        own.mkdir()
        settings = (
            f'[prediction_log]\npath = "{self.log}"\nguarantee = "{guarantee}"\n'
            f'min_free = "0B"\n{more}'
        )
        self.running.append(harness.start(own, self.repository, settings, **options))
        return self.running[-1]

    def newest(self) -> int:
        """The highest number of a segment; 0 before the first."""
        names = (path.stem for path in (self.log / "segments").iterdir())
        return max((int(name) for name in names if name.isdigit()), default=0)

    def segments(self) -> list[Path]:
        """Closed segments."""
        return sorted((self.log / "segments").glob("*.segment"))

    def convert(self) -> harness.Gateway:
        """Has another gateway convert everything; it still runs."""
        gateway = self.start("off")
        harness.wait_until(lambda: not self.segments(), 120)
        return gateway

    def rows(self) -> list[dict[str, Any]]:
        """What is in files, with the path of each."""
        found = []
        for path in sorted((self.log / "files").rglob("*.parquet")):
            table = pyarrow.parquet.ParquetFile(path).read()
            inside = path.relative_to(self.log / "files")
            found += [row | {"path": inside} for row in table.to_pylist()]
        return found


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """A log without a gateway."""
    made = Life(tmp_path)
    yield made
    for gateway in made.running:
        if gateway.process.poll() is None:
            gateway.stop()


def one(gateway: harness.Gateway, model: str = MODEL, body: Any = None) -> str:
    """The id of a prediction."""
    answer = wire.infer(gateway.http, model, body or BODY)
    assert answer.status == 200, answer
    return str(answer.json()["parameters"]["prediction_id"])


class Load:
    """Callers who write down which predictions they were answered with, until the doors close."""

    def __init__(self, gateway: harness.Gateway, callers: int = 8) -> None:
        self._gateway = gateway
        self._over = threading.Event()
        self.answered: list[str] = []
        self.wrong: list[str] = []
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        while not self._over.is_set():
            try:
                answer = wire.infer(self._gateway.http, MODEL, BODY)
            except (OSError, AttributeError):
                # The last is what Python says of a connection that is closed while a call is sent.
                self._over.wait(0.01)
                continue
            except http.client.HTTPException as error:
                # An answer that was cut off in the middle.
                self.wrong.append(repr(error))
                continue
            if answer.status == 200:
                self.answered.append(answer.json()["parameters"]["prediction_id"])

    def end(self) -> list[str]:
        """Ids of all answers."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
        assert self.wrong == []
        return self.answered


def counts(rows: list[dict[str, Any]]) -> Counter[str]:
    """How often each answered prediction is there."""
    return Counter(row["prediction_id"] for row in rows if row["status"] == "answered")


@pytest.mark.parametrize("guarantee", ["durable", "lossy"])
def test_an_orderly_end_under_load_loses_no_row(life: Life, guarantee: str) -> None:
    answered: list[str] = []
    for _ in range(3):
        gateway = life.start(guarantee, 'segment_age = "300ms"\n')
        load = Load(gateway)
        harness.wait_until(lambda load=load: len(load.answered) > 100, 60)
        gateway.stop()
        answered += load.end()
    life.convert().stop()
    found = counts(life.rows())
    assert [name for name in answered if found[name] != 1] == []
    # Nobody was answered twice, and nothing is there twice.
    assert len(set(answered)) == len(answered) and set(found.values()) == {1}


def test_what_is_whole_of_a_damaged_segment_is_saved_and_the_rest_named(life: Life) -> None:
    gateway = life.start("durable")
    names = [one(gateway) for _ in range(800)]
    # There is a file where the folder of its files would be: nothing is converted at the stop.
    in_the_way = life.log / "files" / f"model={MODEL}"
    in_the_way.write_text("")
    gateway.stop()
    [segment] = life.segments()
    in_the_way.unlink()
    data = bytearray(segment.read_bytes())
    # A record is a head of 17 bytes, a tag and a length, and the prediction's id.
    starts = [data.index(uuid.UUID(name).bytes) - 19 for name in names]
    # Inside a row, in the head of one, and a stretch of several.
    data[starts[200] + 100] ^= 0xFF
    data[starts[400] + 5] ^= 0xFF
    hole = range(starts[600] + 50, starts[600] + 1550)
    for at in hole:
        data[at] = 0xAA
    segment.write_bytes(bytes(data))
    gateway = life.convert()
    assert harness.metric(gateway, "penstock_prediction_log_damaged_segments_total") == 1
    said = gateway.log_text()
    assert "is damaged; what could be read was kept" in said and f"{segment.stem}.damaged" in said
    assert "does not match its checksum" in said and "from byte" in said
    gateway.stop()
    # It is kept for whoever knows more.
    aside = segment.with_suffix(".damaged")
    assert aside.read_bytes() == bytes(data)
    found = counts(life.rows())
    assert set(found) <= set(names) and set(found.values()) == {1}
    missing = [index for index, name in enumerate(names) if name not in found]
    in_the_hole = [index for index, start in enumerate(starts) if 600 <= index and start < hole.stop]
    assert len(in_the_hole) > 2
    assert missing == [200, 400, *in_the_hole]
    # The next start neither does it again nor complains.
    again = life.start("durable")
    names.append(one(again))
    again.stop()
    life.convert().stop()
    assert sum(counts(life.rows()).values()) == len(found) + 1


def test_a_segment_that_ends_too_early_is_cut_behind_its_last_whole_row(life: Life) -> None:
    gateway = life.start("durable")
    names = [one(gateway) for _ in range(50)]
    gateway.process.kill()
    gateway.process.wait()
    [open_segment] = (life.log / "segments").glob("*.open")
    data = open_segment.read_bytes()
    open_segment.write_bytes(data[:-7])
    gateway = life.convert()
    assert "a segment was left damaged" in gateway.log_text()
    gateway.stop()
    found = counts(life.rows())
    assert set(found) == set(names[:-1]) and set(found.values()) == {1}


def built_shim(folder: Path) -> tuple[dict[str, str], Callable[[int], None]]:
    """The library's environment, and what moves the clock by so many seconds."""
    library, control = folder / "shim.so", folder / "control"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-o", library, SHIM, "-ldl"], check=True, timeout=60
    )
    control.write_bytes(bytes(16))
    environment = {
        "LD_PRELOAD": str(library),
        "PENSTOCK_TRIAL_FOLDER": str(folder / "nowhere"),
        "PENSTOCK_TRIAL_CONTROL": str(control),
    }

    def move(seconds: int) -> None:
        file = os.open(control, os.O_WRONLY)
        os.pwrite(file, struct.pack("=q", seconds), 8)
        os.close(file)

    return environment, move


def test_a_clock_that_goes_backwards_spoils_neither_ids_nor_partitions(
    life: Life, tmp_path: Path
) -> None:
    environment, move = built_shim(tmp_path)
    gateway = life.start("durable", 'segment_age = "200ms"\n', environment=environment)
    load, starts = Load(gateway), [0]
    for seconds in (-DAY, DAY, -3 * DAY, 0):
        # In the middle of the log.
        newest = life.newest()
        harness.wait_until(lambda newest=newest: life.newest() > newest, 60)
        move(seconds)
        before = len(load.answered)
        harness.wait_until(lambda before=before: len(load.answered) > before + 50, 60)
        starts.append(len(load.answered))
    answered = load.end()
    assert "panic" not in gateway.log_text()
    gateway.stop()
    life.convert().stop()
    rows = life.rows()
    found = counts(rows)
    assert [name for name in answered if found[name] != 1] == []
    assert len(set(answered)) == len(answered)
    assert {uuid.UUID(name).version for name in answered} == {7}
    days = set()
    for row in rows:
        arrived = row["arrived"].astimezone(timezone.utc)
        days.add(arrived.date())
        at = row["path"].parts
        assert f"date={arrived:%Y-%m-%d}" in at and f"hour={arrived:%H}" in at, row
        assert 0 <= row["total_us"] < 60_000_000
    # It did see other days.
    assert len(days) == 4, days


def identity(inputs: dict[str, str]) -> str:
    """A manifest with pairs of these tensors; outputs are `NAME_too`."""
    tensors = "".join(
        f'[[{side}]]\nname = "{name}{more}"\ndtype = "{dtype}"\nshape = [-1, 2]\n'
        for side, more in (("input", ""), ("output", "_too"))
        for name, dtype in inputs.items()
    )
    return f'platform = "identity"\nmax_batch_size = 8\n{tensors}'


def test_tensors_that_change_between_versions_are_read_together(life: Life) -> None:
    manifest = life.repository / MODEL / "model.toml"
    manifest.write_text(identity({"x": "FP32"}))
    gateway = life.start("durable")
    names = {one(gateway): ("1", 1.5) for _ in range(10)}
    gateway.stop()
    # The same model with another type, and one tensor more.
    (life.repository / MODEL / "2").mkdir()
    manifest.write_text(identity({"x": "FP64", "z": "BYTES"}))
    gateway = life.start("durable")
    body = {
        "inputs": [
            wire.tensor("FP64", [1, 2], [2.5, -3.0]),
            wire.tensor("BYTES", [1, 2], ["a", "b"], "z"),
        ]
    }
    names |= {one(gateway, body=body): ("2", 2.5) for _ in range(10)}
    gateway.stop()
    life.convert().stop()
    rows = life.rows()
    assert len({row["schema"] for row in rows}) == 2
    # As the documentation has it.
    hive = pyarrow.dataset.partitioning(
        pyarrow.schema([(key, pyarrow.string()) for key in ("model", "version", "date", "hour")]),
        flavor="hive",
    )
    files = pyarrow.dataset.dataset(life.log / "files", partitioning=hive)
    schemas = [files.schema, *(part.physical_schema for part in files.get_fragments())]
    together = pyarrow.dataset.dataset(
        life.log / "files",
        partitioning=hive,
        schema=pyarrow.unify_schemas(schemas, promote_options="permissive"),
    ).to_table()
    read = {
        row["prediction_id"]: (row["version"], row["in_x_0"], row["in_z_1"])
        for row in together.to_pylist()
    }
    assert read == {
        name: (version, value, "b" if version == "2" else None)
        for name, (version, value) in names.items()
    }
