"""Many rows, through a real gateway, as pandas, DuckDB and Evidently read them, and what they weigh
beside the same calls logged as KServe does: CloudEvents that hold JSON in base64."""

from __future__ import annotations

import base64
import json
import os
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb
import filled
import harness
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as dataset
import pyarrow.parquet as parquet
import pytest

os.environ["DO_NOT_TRACK"] = "1"

FEATURES = ["age", "income", "debts", "years"]
CITIES = np.array(["Ghent", "Łódź", "Porto", "Turku"])
TYPES = {
    "in_age": "float32", "in_visits": "int64", "in_is_member": "bool", "in_city": "object",
    "out_age": "float32", "out_visits": "int64", "out_is_member": "bool", "out_city": "object",
    "arrived": "datetime64[us, UTC]", "item": "int32", "total_us": "int64", "inclusion": "float64",
}  # fmt: skip
TENSORS = (
    ("numbers", "FP32", [-1, len(FEATURES)]),
    ("visits", "INT64", [-1, 1]),
    ("is_member", "BOOL", [-1, 1]),
    ("city", "BYTES", [-1, 1]),
)


def shortest(values: np.ndarray) -> list[object]:
    """Values for JSON; numbers with no more digits than tell them from others of their type."""
    if values.dtype == np.float32:
        return [float(text) for text in values.ravel().astype(str)]
    return values.ravel().tolist()


@dataclass
class Rows:
    """What is asked of the model, a column each."""

    numbers: np.ndarray
    visits: np.ndarray
    is_member: np.ndarray
    city: np.ndarray

    @classmethod
    def drawn(cls, count: int) -> Rows:
        """A tenth of the ages is missing; incomes rise in the second half."""
        draw = np.random.default_rng(11)
        numbers = np.round(draw.gamma(3, 20, (count, len(FEATURES))), 2).astype(np.float32)
        numbers[draw.random(count) < 0.1, 0] = np.nan
        numbers[count // 2 :, 1] += 50
        visits = draw.integers(0, 2**40, (count, 1))
        return cls(numbers, visits, draw.random((count, 1)) < 0.3, draw.integers(0, 4, count))

    def tensors(self, at: slice) -> dict[str, tuple[str, list[int], bytes]]:
        """The rows of one call, as they go over the wire."""
        numbers, cities = self.numbers[at], CITIES[self.city[at]]
        count = len(numbers)
        return {
            "numbers": ("FP32", [count, len(FEATURES)], numbers.tobytes()),
            "visits": ("INT64", [count, 1], self.visits[at].tobytes()),
            "is_member": ("BOOL", [count, 1], self.is_member[at].tobytes()),
            "city": ("BYTES", [count, 1], filled.texts(city.encode() for city in cities)),
        }

    def events(self, at: slice) -> Iterator[dict[str, str]]:
        """The call as KServe's logger tells it: what was asked, and what was answered."""
        values = (self.numbers, self.visits, self.is_member, CITIES[self.city][:, None])
        data = [
            {
                "name": name,
                "datatype": datatype,
                "shape": [len(part[at]), shape[1]],
                "data": shortest(part[at]),
            }
            for (name, datatype, shape), part in zip(TENSORS, values, strict=True)
        ]
        call = str(uuid.uuid4())
        for kind, body in (
            ("request", {"id": call, "inputs": data}),
            (
                "response",
                {"id": call, "model_name": "people", "model_version": "1", "outputs": data},
            ),
        ):
            text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
            yield {
                "specversion": "1.0",
                "id": call,
                "source": "http://people.default/",
                "type": f"org.kubeflow.serving.inference.{kind}",
                "time": "2026-11-22T10:00:00.000000Z",
                "inferenceservicename": "people",
                "datacontenttype": "application/json",
                "data_base64": base64.b64encode(text).decode(),
            }


def write_model(repository: Path) -> None:
    """A model of four types."""
    text = 'platform = "identity"\nmax_batch_size = 64\n'
    for side in ("input", "output"):
        for name, datatype, shape in TENSORS:
            text += f'[[{side}]]\nname = "{name}"\ndtype = "{datatype}"\nshape = {shape}\n'
            text += f"features = {FEATURES}\n" if name == "numbers" else ""
    (repository / "people" / "1").mkdir(parents=True)
    (repository / "people" / "model.toml").write_text(text)


def log_calls(folder: Path, rows: Rows, items: int) -> Path:
    """Has a gateway answer all rows, so many a call, and gives the folder of its log."""
    repository, log = folder / "repository", folder / "predictions"
    write_model(repository)
    settings = f'[prediction_log]\npath = "{log}"\nmin_free = "0B"\nsegment_age = "2s"\n'
    gateway = harness.start(folder, repository, settings)
    starts = range(0, len(rows.numbers), items)

    def call_all(own: range) -> None:
        caller = filled.Caller(gateway)
        for start in own:
            status, answer = caller.call("people", rows.tensors(slice(start, start + items)))
            assert status == 200, answer
        caller.close()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(call_all, (starts[0::2], starts[1::2])))
    filled.end(gateway, 600)
    return log


def size(folder: Path) -> int:
    """Bytes of the Parquet files of a log."""
    return sum(path.stat().st_size for path in (folder / "files").rglob("*.parquet"))


def in_pandas(log: Path, rows: Rows) -> pd.DataFrame:
    """The log in pandas: right types, counts and missing values."""
    hive = dataset.partitioning(flavor="hive")
    frame = dataset.dataset(log / "files", partitioning=hive).to_table().to_pandas()
    assert len(frame) == len(rows.numbers)
    assert {name: str(frame[name].dtype) for name in TYPES} == TYPES
    # NaN came as NaN, and nothing became null.
    assert frame.in_age.isna().sum() == np.isnan(rows.numbers[:, 0]).sum()
    assert frame[["in_income", "in_visits", "in_city", "out_city"]].notna().all(axis=None)
    assert frame.in_visits.sum() == rows.visits.sum()
    assert frame.in_is_member.sum() == frame.out_is_member.sum() == rows.is_member.sum()
    counts = frame.in_city.value_counts().to_dict()
    assert counts == dict(zip(CITIES, np.bincount(rows.city).tolist(), strict=True))
    # Each row is there as it was, once.
    key = ["in_visits", "in_income", "in_years"]
    given = pd.DataFrame({"in_visits": rows.visits[:, 0], "in_income": rows.numbers[:, 1],
                          "in_years": rows.numbers[:, 3]})  # fmt: skip
    assert (
        given.sort_values(key)
        .reset_index(drop=True)
        .equals(frame[key].sort_values(key).reset_index(drop=True))
    )
    return frame


def in_duckdb(log: Path, rows: Rows) -> None:
    """The log in DuckDB."""
    lines, calls, missing, members, visits = (
        duckdb.connect()
        .execute(f"""
        SELECT count(*), count(DISTINCT prediction_id), count(*) FILTER (isnan(in_age)),
               count(*) FILTER (in_is_member), sum(in_visits)
        FROM read_parquet('{log}/files/**/*.parquet', hive_partitioning = true)
    """)
        .fetchall()[0]
    )
    assert lines == len(rows.numbers)
    assert missing == np.isnan(rows.numbers[:, 0]).sum() and members == rows.is_member.sum()
    assert visits == rows.visits.sum() and 0 < calls <= lines


def in_evidently(frame: pd.DataFrame) -> None:
    """All lines in Evidently, which finds what drifts and how much is missing."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import MissingValueCount
    from evidently.presets import DataDriftPreset

    numbers = [f"in_{name}" for name in FEATURES]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=["in_city"])
    frame = frame.sort_values(["arrived", "item"])[[*numbers, "in_city"]]
    half = len(frame) // 2
    before, after = (
        Dataset.from_pandas(part, data_definition=definition)
        for part in (frame.iloc[:half], frame.iloc[half:])
    )
    preset = DataDriftPreset(num_method="psi", cat_method="psi", threshold=0.1)
    report = Report([preset, MissingValueCount(column="in_age")])
    metrics = report.run(after, before).dict()["metrics"]
    drift = {
        metric["config"]["column"]: metric["value"] > 0.1
        for metric in metrics
        if metric["metric_name"].startswith("ValueDrift")
    }
    assert drift == {name: name == "in_income" for name in [*numbers, "in_city"]}
    [missing] = [of["value"] for of in metrics if of["metric_name"].startswith("MissingValue")]
    assert missing["count"] == frame.in_age.iloc[half:].isna().sum()


def weigh_events(folder: Path, rows: Rows, items: int, count: int) -> tuple[int, int]:
    """Bytes of the first rows' calls in KServe's way: lines of JSON, and Parquet with zstd."""
    schema = pa.schema([(name, pa.string()) for name in next(rows.events(slice(0, 1)))])
    text, path = 0, folder / "events.parquet"
    with parquet.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer:
        starts = range(0, count, items)
        for first in range(0, len(starts), 1000):
            parts = (slice(at, at + items) for at in starts[first : first + 1000])
            events = [event for part in parts for event in rows.events(part)]
            text += sum(len(json.dumps(event)) + 1 for event in events)
            writer.write_table(pa.Table.from_pylist(events, schema))
    return text, path.stat().st_size


@pytest.mark.parametrize(
    ("count", "items"),
    [
        pytest.param(50_000, 64, id="50000 rows in calls of 64"),
        pytest.param(5_000, 1, id="5000 calls of one row"),
        pytest.param(1_000_000, 64, id="a million rows", marks=pytest.mark.soak),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_many_rows_are_read_as_they_were_and_take_less_than_base64(
    tmp_path: Path, count: int, items: int
) -> None:
    rows = Rows.drawn(count)
    took = [time.monotonic()]
    log = log_calls(tmp_path, rows, items)
    took.append(time.monotonic())
    frame = in_pandas(log, rows)
    took.append(time.monotonic())
    in_duckdb(log, rows)
    took.append(time.monotonic())
    in_evidently(frame)
    took.append(time.monotonic())
    # As many as tell what a row weighs.
    weighed = min(count, 64_000)
    text, events = (of / weighed for of in weigh_events(tmp_path, rows, items, weighed))
    own = size(log) / count
    seconds = [f"{after - before:.1f}" for before, after in zip(took, took[1:], strict=False)]
    print(
        f"\n{count} rows in calls of {items}: bytes a row {own:.1f}, in KServe's way "
        f"{events:.1f} in Parquet, {text:.1f} as text; seconds to log, and in "
        f"pandas, DuckDB and Evidently: {', '.join(seconds)}"
    )
    assert own < events < text
