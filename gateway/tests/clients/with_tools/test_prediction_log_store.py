"""Files of the prediction log reach an S3-compatible store, whatever that store does meanwhile."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import harness
import object_store
import pytest

SECRET = "planted-secret-of-the-store"
REFUSED = (
    403,
    "<Error><Code>InvalidAccessKeyId</Code>"
    f"<Message>no such key</Message><AWSAccessKeyId>{SECRET}</AWSAccessKeyId></Error>",
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[object_store.ObjectStore]:
    """A store of the test's own."""
    with object_store.running(tmp_path) as store:
        yield store


class Log:
    """Gateways on one folder of a prediction log, one after the other."""

    def __init__(self, folder: Path, store: object_store.ObjectStore, more: str = "") -> None:
        self._folder = folder
        self._repository = folder / "repository"
        self._repository.mkdir()
        harness.write_identity(self._repository, "FP32")
        credentials = folder / "store.env"
        credentials.write_text(f"AWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY={SECRET}\n")
        self._settings = (
            f'[prediction_log]\npath = "{folder}/log"\nguarantee = "durable"\n'
            'segment_age = "200ms"\nmin_free = "0B"\n'
            f'[prediction_log.store]\nurl = "s3://{object_store.BUCKET}/team/a"\n'
            f'endpoint = "{store.door.url}"\nallow_http = true\nregion = "us-east-1"\n'
            f'credentials = "{credentials}"\ntimeout = "1s"\n{more}'
        )
        self._starts = 0
        self.asked: list[str] = []

    def start(self) -> harness.Gateway:
        """Starts the next gateway."""
        self._starts += 1
        own = self._folder / f"gateway-{self._starts}"
        own.mkdir()
        return harness.start(own, self._repository, self._settings)

    def call(self, gateway: harness.Gateway, count: int) -> None:
        """Makes calls, each with an id of its own."""
        for _ in range(count):
            name = f"call-{len(self.asked)}"
            body = {
                "id": name,
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}],
            }
            request = urllib.request.Request(
                f"http://{gateway.http}/v2/models/identity_fp32/infer", json.dumps(body).encode()
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert json.load(answer)["id"] == name
            self.asked.append(name)

    def files(self) -> list[Path]:
        """Parquet files on this machine."""
        return list((self._folder / "log" / "files").rglob("*.parquet"))


def figure(gateway: harness.Gateway, name: str) -> float:
    """A metric of the log."""
    return harness.metric(gateway, f"penstock_prediction_log_{name}")


def is_delivered(gateway: harness.Gateway, rows: int) -> bool:
    """Whether all of so many rows were converted by this process and have arrived."""
    if figure(gateway, "converted_rows_total") != rows:
        return False
    return figure(gateway, "delivered_files_total") == figure(gateway, "files_total")


def test_a_store_that_fails_stalls_and_returns_gets_every_row_once(
    tmp_path: Path, store: object_store.ObjectStore
) -> None:
    log = Log(tmp_path, store)
    gateway = log.start()
    log.call(gateway, 5)
    harness.wait_until(lambda: is_delivered(gateway, 5), 60)
    # As files arrive they leave this machine.
    assert log.files() == []

    store.door.mood = (500, "<Error><Code>InternalError</Code></Error>")
    log.call(gateway, 5)
    failures = figure(gateway, "delivery_failures_total")
    harness.wait_until(lambda: figure(gateway, "delivery_failures_total") > failures + 1, 60)
    store.door.mood = "stalled"
    log.call(gateway, 5)
    failures = figure(gateway, "delivery_failures_total")
    harness.wait_until(lambda: figure(gateway, "delivery_failures_total") > failures + 1, 60)
    harness.wait_until(lambda: figure(gateway, "undelivered_files") >= 2, 60)
    assert "prediction_log.store: the store answered 500: InternalError" in gateway.log_text()
    assert len(log.files()) >= 2

    # Killed with files that are not delivered, the next one takes them up.
    gateway.process.kill()
    gateway.process.wait()
    gateway = log.start()
    log.call(gateway, 5)
    store.door.mood = "well"
    harness.wait_until(lambda: len(store.column("caller_id")) >= len(log.asked), 60)
    harness.wait_until(lambda: log.files() == [], 60)
    assert sorted(store.column("caller_id")) == sorted(log.asked)
    assert all(name.startswith("team/a/") for name in store.objects())
    gateway.stop()
    # Nothing came twice afterwards either.
    assert sorted(store.column("caller_id")) == sorted(log.asked)


def test_a_gateway_killed_during_uploads_leaves_every_row_once(
    tmp_path: Path, store: object_store.ObjectStore
) -> None:
    log = Log(tmp_path, store)
    moods = ("slow", (503, "<Error><Code>SlowDown</Code></Error>"), "slow", "stalled", "slow")
    for mood in moods:
        store.door.mood = mood
        gateway = log.start()
        log.call(gateway, 20)
        refused = store.door.refused
        if mood == "slow":
            # The store has a file, and nobody has been told.
            harness.wait_until(lambda: store.door.unconfirmed > 0, 60)
        else:
            harness.wait_until(
                lambda refused=refused: len(log.files()) > 0 and store.door.refused > refused, 60
            )
        gateway.process.kill()
        gateway.process.wait()
    store.door.mood = "well"
    gateway = log.start()
    log.call(gateway, 20)
    harness.wait_until(lambda: len(store.column("caller_id")) >= len(log.asked), 60)
    harness.wait_until(lambda: log.files() == [], 60)
    gateway.stop()
    # Neither in the store nor on this machine is anything twice, or nowhere.
    assert log.files() == [] and not list((tmp_path / "log" / "segments").iterdir())
    assert sorted(store.column("caller_id")) == sorted(log.asked)


def test_a_gateway_that_stops_delivers_what_it_has(
    tmp_path: Path, store: object_store.ObjectStore
) -> None:
    log = Log(tmp_path, store, "keep_local = true\n")
    gateway = log.start()
    log.call(gateway, 20)
    gateway.stop()
    assert sorted(store.column("caller_id")) == sorted(log.asked)
    here = {file.name: file.read_bytes() for file in log.files()}
    there = store.objects().items()
    assert here == {Path(name).name: data for name, data in there if name.endswith(".parquet")}


def test_credentials_that_fail_are_told_at_the_start_and_tried_again(
    tmp_path: Path, store: object_store.ObjectStore
) -> None:
    log = Log(tmp_path, store)
    store.door.mood = REFUSED
    gateway = log.start()
    said = "prediction_log.store.credentials or those of the environment: the store refuses these"
    harness.wait_until(lambda: said in gateway.log_text(), 60)
    assert "InvalidAccessKeyId" in gateway.log_text()
    log.call(gateway, 5)
    harness.wait_until(lambda: len(log.files()) > 0, 60)
    store.door.mood = "well"
    harness.wait_until(lambda: is_delivered(gateway, 5), 120)
    assert sorted(store.column("caller_id")) == sorted(log.asked)
    gateway.stop()
    assert SECRET not in gateway.log_text()
