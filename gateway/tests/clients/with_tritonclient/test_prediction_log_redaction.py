"""What the rules of the prediction log take away is nowhere: not on disk, not in logs or metrics.

Secrets are planted in all that a call carries. What no rule covers is found in the same places by
the same means, so that a search that finds nothing has looked.
"""

from __future__ import annotations

import re
import signal
import struct
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import harness
import tokens
from calls import CALLERS, Caller, refusal

# What no rule covers: the control.
OPEN_TEXT, OPEN_HEADER, OPEN_NUMBER = "open-text-4711", "open-header-4711", 271828.1875
# What rules leave of texts and numbers.
CUT, ROUNDED = "cutt", 654000.0
KEY, HASH_KEY = "planted-api-key-0815", "planted-hash-key-0815"
TEXTS = {
    "dropped input": "planted-dropped-input",
    "hashed input": "planted-hashed-input",
    "cut input": "cutt-planted-input",
    "dropped caller id": "planted-caller-id",
    "idempotency key": "planted-idempotency-key",
    "dropped header": "planted-dropped-header",
    "cut parameter": "tena-planted-parameter",
    "sticky key": "planted-sticky-key",
    "header that nobody declares": "planted-other-header",
    "parameter that nobody declares": "planted-other-parameter",
    "API key": KEY,
    "key of hashes": HASH_KEY,
    "input that no model declares": "planted-undeclared-input",
    "input whose scalars have no names": "planted-unnamed-input",
}
NUMBERS = {
    "dropped feature": 98765.4321,
    "rounded number": 654321.0625,
    "dropped number": 13579.24681,
}
HASHED_NUMBER = 8_123_456_789_012_345
# Whose call it is; a name of the configuration, which rows have hashed.
IDENTITY = "planted-name-of-the-caller"

RULES = {
    "in.dropped": "drop", "out.dropped_too": "drop",
    "in.hashed": "hash", "out.hashed_too": "hash",
    "in.cut": "truncate:4", "out.cut_too": "truncate:4",
    "in.rounded": "bucket:1000", "out.rounded_too": "bucket:1000",
    "in.numbered": "hash", "out.numbered_too": "hash",
    "in.blank": "drop", "out.blank_too": "drop",
    "in.salary": "drop", "out.salary_too": "drop",
    # About all models: what has no names may be it.
    "in.ssn": "drop", "out.ssn_too": "drop",
    "caller_id": "drop", "idempotency_key": "hash",
    "header.x-dropped": "drop", "slice.tenant": "truncate:4",
}  # fmt: skip

# Reads Parquet; the clients' environment has nothing that does.
READER = harness.ROOT / ".venv" / "tools" / "bin" / "python"
READ = """
import pathlib, sys
import pyarrow.parquet as parquet
for path in sorted(pathlib.Path(sys.argv[1]).rglob("*.parquet")):
    table = parquet.ParquetFile(path).read()
    print(path.name, table.schema.metadata)
    for row in table.to_pylist():
        print(row)
"""


def write_model(folder: Path, name: str, dtype: str, width: int, features: str = "") -> None:
    """A model that answers the tensor `name` as `name_too`."""
    model = folder / name
    (model / "1").mkdir(parents=True)
    shape = f'dtype = "{dtype}"\nshape = [-1, {width}]\n'
    names = [f"features = {features}\n" if features else "" for _ in range(2)]
    names[1] = names[1].replace('",', '_too",').replace('"]', '_too"]')
    (model / "model.toml").write_text(
        f'platform = "identity"\nmax_batch_size = 8\n[[input]]\nname = "{name}"\n{shape}{names[0]}'
        f'[[output]]\nname = "{name}_too"\n{shape}{names[1]}'
    )


def settings(folder: Path) -> str:
    """Rules of every kind, for a log that has all there is."""
    (folder / "hash.key").write_text(HASH_KEY)
    rules = ""
    for field, how in RULES.items():
        rules += f'[[prediction_log.redact]]\nfield = "{field}"\nhow = "{how}"\n'
        side, _, name = field.partition(".")
        if side in ("in", "out") and not name.startswith("ssn"):
            model = name.removesuffix("_too").replace("salary", "person")
            rules += f'model = "{model}"\n'
    return f"""
[log]
level = "trace"
[state]
path = "{folder}/state"
[[auth.key]]
name = "{IDENTITY}"
roles = ["predict", "operate"]
hashes = ["{tokens.hash_of(KEY)}"]
[[route]]
name = "open"
sticky = "header:x-user-id"
[[route.arm]]
name = "stable"
version = "1"
[prediction_log]
guarantee = "durable"
min_free = "0B"
segment_age = "1h"
slices = ["header:x-dropped", "header:x-open", "parameter:tenant"]
hash_key = "file:{folder}/hash.key"
{rules}"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model for each kind of rule, and one without."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("dropped", "hashed", "cut", "unnamed"):
        write_model(folder, name, "BYTES", 1)
    write_model(folder, "open", "BYTES", 1, '["word"]')
    write_model(folder, "numbered", "INT64", 1)
    for name in ("rounded", "blank"):
        write_model(folder, name, "FP64", 1)
    write_model(folder, "plain", "FP64", 1, '["number"]')
    write_model(folder, "person", "FP64", 3, '["age", "salary", "height"]')
    return folder


def ask(caller: Caller, number: int) -> None:
    """Calls every model with what is secret, well and badly."""
    headers = {
        "authorization": f"Bearer {KEY}",
        "x-dropped": TEXTS["dropped header"],
        "x-open": OPEN_HEADER,
        "x-user-id": TEXTS["sticky key"],
        "x-other": TEXTS["header that nobody declares"],
    }
    texts = {
        "dropped": TEXTS["dropped input"],
        "hashed": TEXTS["hashed input"],
        "cut": TEXTS["cut input"],
        "open": OPEN_TEXT,
        "unnamed": TEXTS["input whose scalars have no names"],
    }
    arrays: dict[str, Any] = {
        name: np.array([[text.encode()]], np.object_) for name, text in texts.items()
    }
    arrays["numbered"] = np.array([[HASHED_NUMBER]], np.int64)
    arrays["rounded"] = np.array([[NUMBERS["rounded number"]]])
    arrays["blank"] = np.array([[NUMBERS["dropped number"]]])
    arrays["plain"] = np.array([[OPEN_NUMBER]])
    arrays["person"] = np.array([[30.0, NUMBERS["dropped feature"], 1.75]])
    tenant = {"tenant": TEXTS["cut parameter"], "other": TEXTS["parameter that nobody declares"]}
    for model, array in arrays.items():
        key = f"{TEXTS['idempotency key']}-{model}-{number}"
        options: dict[str, Any] = {"request_id": TEXTS["dropped caller id"], "parameters": tenant}
        for _ in range(2):
            # The second one is a repeat.
            own = headers | {"idempotency-key": key}
            answer = caller.infer(model, {model: array}, headers=own, **options)
            np.testing.assert_array_equal(answer[f"{model}_too"], array)
        undeclared = np.array([[TEXTS["input that no model declares"].encode()]], np.object_)
        wrong = {model: array, "undeclared": undeclared}
        twice = {model: np.concatenate([array, array], axis=1)}
        for inputs in (wrong, twice):
            call = lambda inputs=inputs, model=model: caller.infer(
                model, inputs, headers=dict(headers), **options
            )
            status, _ = refusal(call)
            assert status in ("400", "StatusCode.INVALID_ARGUMENT"), (model, status)


def needles() -> dict[str, bytes]:
    """What must be nowhere, in all forms in which it could be."""
    found = {what: text.encode() for what, text in TEXTS.items()}
    for what, number in NUMBERS.items():
        found[f"{what} as text"] = str(number).encode()
        found[f"{what} in binary"] = struct.pack("<d", number)
    found["hashed number as text"] = str(HASHED_NUMBER).encode()
    found["hashed number in binary"] = struct.pack("<q", HASHED_NUMBER)
    return found


def files(*folders: Path) -> dict[str, bytes]:
    """Everything that is in files."""
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def told(gateway: harness.Gateway) -> dict[str, bytes]:
    """Everything that the gateway says of itself."""
    pages = {f"http://{gateway.metrics}/metrics": {}}
    authorization = {"authorization": f"Bearer {KEY}"}
    for path in ("status", "limits", "breakers", "routes", "routes/open", "revisions", "upstreams"):
        pages[f"http://{gateway.admin}/v1/{path}"] = authorization
    for path in ("models/open", "models/open/stats", "models/open/config", "logging"):
        pages[f"http://{gateway.http}/v2/{path}"] = authorization
    found = {"stderr": gateway.log_text().encode()}
    for url, headers in pages.items():
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            found[url] = answer.read()
    return found


def search(places: dict[str, bytes], what: dict[str, bytes]) -> list[str]:
    """Which secrets are where."""
    return [
        f"{name} in {place}"
        for place, content in places.items()
        for name, secret in what.items()
        if secret in content
    ]


def test_what_rules_take_away_is_nowhere(tmp_path: Path, repository: Path) -> None:
    own = tmp_path / "gateway"
    own.mkdir()
    lines = settings(tmp_path)
    gateway = harness.start(own, repository, lines)
    for number, (kind, make) in enumerate(CALLERS.items()):
        caller = make(gateway.http if kind.startswith("http") else gateway.grpc)
        ask(caller, number)
        caller.close()
    log = tmp_path / "state" / "predictions"

    # While rows are in segments, which are not compressed.
    segments = files(log / "segments")
    assert search(segments, needles()) == []
    assert search(segments, {"the caller's name": IDENTITY.encode()}) == []
    everything = b"".join(segments.values())
    control = (OPEN_TEXT, OPEN_HEADER, CUT, "tena")
    assert [text for text in control if text.encode() not in everything] == []
    numbers = (OPEN_NUMBER, ROUNDED)
    assert [number for number in numbers if struct.pack("<d", number) not in everything] == []
    assert search(files(tmp_path / "state"), needles()) == []
    said = told(gateway)
    assert search(said, needles()) == []
    # It tells as much as it can, and is asked in the right place.
    assert b"DEBUG" in said["stderr"] and b"open" in said[f"http://{gateway.metrics}/metrics"]
    gateway.stop()

    # Once they are in files.
    gateway = harness.start(own, repository, lines)
    harness.wait_until(lambda: not list((log / "segments").glob("*.segment")), 120)
    said = told(gateway)
    gateway.stop()
    assert search(said | {"stderr at the end": gateway.log_text().encode()}, needles()) == []
    assert search(files(tmp_path / "state", own), needles()) == []
    done = subprocess.run([READER, "-c", READ, log], capture_output=True, timeout=60, check=True)
    rows = {"Parquet": done.stdout}
    assert search(rows, needles() | {"the caller's name": IDENTITY.encode()}) == []
    for text in (*control, str(OPEN_NUMBER), str(ROUNDED)):
        assert text.encode() in done.stdout, text
    # What is to be hashed is neither kept nor dropped.
    for column in ("in_hashed", "out_hashed_too"):
        kept = re.findall(rf"'{column}\w*': '([0-9a-f]{{32}})'".encode(), done.stdout)
        assert len(kept) >= len(CALLERS) and len(set(kept)) == 1, column
    kept = re.findall(rb"'in_numbered\w*': (-?[0-9]+)[,}]", done.stdout)
    assert len(kept) >= len(CALLERS) and len(set(kept)) == 1
    # Every call has its row: answered, repeated and refused.
    for status in (b"'answered'", b"'replayed'", b"'refused'"):
        assert done.stdout.count(status) >= len(CALLERS) * 10, status


def test_a_rule_that_fits_nothing_here_is_refused_at_the_start(
    tmp_path: Path, repository: Path
) -> None:
    rule = '[[prediction_log.redact]]\nfield = "header.x-nowhere"\nhow = "drop"\n'
    with pytest.raises(AssertionError, match="names nothing in prediction_log.slices"):
        harness.start(tmp_path, repository, f'[prediction_log]\nguarantee = "lossy"\n{rule}')


def test_a_rule_that_names_what_no_model_has_is_told_at_the_start_and_by_a_reload(
    tmp_path: Path, repository: Path
) -> None:
    rule = '[prediction_log]\n[[prediction_log.redact]]\nfield = "in.salry"\nhow = "drop"\n'
    gateway = harness.start(tmp_path, repository, rule)
    path = tmp_path / "penstock.toml"
    try:
        words = "a rule of the prediction log is not for what is here: it names"
        assert f"{words} 'salry', which is no input and no feature of one" in gateway.log_text()
        assert "prediction_log.redact[0].field" in gateway.log_text()
        path.write_text(path.read_text().replace("in.salry", "out.celery"))
        gateway.process.send_signal(signal.SIGHUP)
        said = f"{words} 'celery', which is no output and no feature of one"
        harness.wait_until(lambda: said in gateway.log_text())
    finally:
        gateway.stop()
