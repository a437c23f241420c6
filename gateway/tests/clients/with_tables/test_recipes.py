"""Everything that docs/prediction-log.md says to run is run, on a log that gateways wrote."""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import filled
import harness
import pandas as pd
import pytest

DOCUMENT = harness.ROOT / "docs" / "prediction-log.md"
EXAMPLE = harness.ROOT / "docs" / "examples" / "prediction_log.py"
FIRST, SECOND = (pd.Timestamp(day) for day in filled.DAYS)


@dataclass
class Recipe:
    """What stands under a heading: tables of its SQL, names that its Python leaves."""

    tables: list[pd.DataFrame] = field(default_factory=list)
    names: dict[str, Any] = field(default_factory=dict)


def blocks() -> Iterator[tuple[str, str, str]]:
    """Heading, language and text of each fenced block of the sections Reading and Recipes."""
    section = heading = ""
    pattern = r"(?m)^(##|###) (.+)$|^```(\w+)\n([^`]+)^```$"
    for found in re.finditer(pattern, DOCUMENT.read_text()):
        if found[1]:
            heading = found[2]
            section = heading if found[1] == "##" else section
        elif section in ("Reading", "Recipes"):
            yield heading, found[3], found[4]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> filled.Filled:
    """A log of two days."""
    return filled.write(tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def recipes(log: filled.Filled) -> dict[str, Recipe]:
    """All recipes, carried out one after the other in the folder of the log."""
    found: dict[str, Recipe] = {}
    database, names = duckdb.connect(), dict[str, Any]()
    here = Path.cwd()
    os.chdir(log.folder.parent)
    try:
        for heading, language, text in blocks():
            recipe = found.setdefault(heading, Recipe())
            if language == "sql":
                for statement in filter(str.strip, text.split(";\n")):
                    table = database.sql(statement)
                    if table is not None and statement.lstrip().startswith("SELECT"):
                        recipe.tables.append(table.df())
            elif language == "python":
                exec(compile(text, heading, "exec"), names)
                recipe.names = dict(names)
            else:
                assert language == "sh", language
    finally:
        os.chdir(here)
    return found


def single(recipe: Recipe) -> pd.DataFrame:
    """The only table of a recipe."""
    [table] = recipe.tables
    return table


def sampled_ids(log: filled.Filled, day: pd.Timestamp) -> list[str]:
    """Ids of sampled calls that are in the log, read another way."""
    folder = log.folder / "files"
    frame = pd.concat(
        pd.read_parquet(path, columns=["prediction_id", "route"], partitioning=None)
        for path in folder.glob(f"model=*/version=*/date={day:%Y-%m-%d}/hour=*/*.parquet")
    )
    return list(frame[frame.route == "clicks"].prediction_id.unique())


def check_reading(recipe: Recipe, log: filled.Filled) -> None:
    frame = recipe.names["frame"]
    assert str(frame.arrived.dtype) == "datetime64[us, UTC]"
    assert str(frame.in_income.dtype) == "float32"
    assert set(frame.version) == {"1", "2"} and set(frame.model) == {"credit", "credit_next"}
    wrong = frame[(frame.status == "refused") & ~frame.amends]
    assert len(wrong) == 20 and wrong[["in_age", "in_income"]].isna().all(axis=None)
    assert set(wrong.error) == {"invalid_input"}
    for day, answered in zip(filled.DAYS, log.answered, strict=True):
        kept = frame[(frame.date == day) & frame.prediction_id.isin(answered) & frame.shadow.isna()]
        assert len(kept) == 400 and kept.prediction_id.nunique() == 100


def check_ends(recipe: Recipe, log: filled.Filled) -> None:
    assert recipe.tables == []


def check_errors(recipe: Recipe, log: filled.Filled) -> None:
    table = single(recipe)
    table["errors"] = table.calls * table.error_rate
    totals = table.groupby(["date", "model", "version"])[["calls", "errors"]].sum()
    # Ten of a wrong shape, and one whose answer could not be said in JSON.
    assert totals.errors.to_dict() == pytest.approx({
        (FIRST, "credit", "1"): 11, (FIRST, "credit", "2"): 0,
        (SECOND, "credit", "1"): 11, (SECOND, "credit", "2"): 0,
    })  # fmt: skip
    first = totals.loc[FIRST].calls
    kept = len(sampled_ids(log, FIRST))
    assert first.sum() == 100 + 10 + 2 + kept


def check_missing(recipe: Recipe, log: filled.Filled) -> None:
    table = single(recipe).set_index("date")
    # One call's inputs are larger than the log takes: its 48 lines have nulls.
    assert (table.nulls * table.lines).tolist() == pytest.approx([48, 48])
    present = table.lines - 48
    assert (table.missing * table.lines / present).tolist() == pytest.approx([0.2, 0.2], abs=0.01)
    assert table.least.tolist() == [1, 31] and table.most.tolist() == [99, 129]
    missing, ranges = recipe.names["missing"], recipe.names["ranges"]
    assert missing.in_income.between(0.2, 0.3).all() and (missing.in_age < 0.05).all()
    assert ranges.loc[filled.DAYS[1], ("in_income", "max")] == 129


def check_latency(recipe: Recipe, log: filled.Filled) -> None:
    table = single(recipe)
    assert list(zip(table.route, table.arm, strict=True)) == [
        ("clicks", "all"), ("loans", "canary"), ("loans", "stable"),
    ]  # fmt: skip
    for low, middle, high in table.total_us:
        assert 0 < low <= middle <= high
    assert table.calls[table.route == "loans"].sum() == 2 * 101


def check_agreement(recipe: Recipe, log: filled.Filled) -> None:
    table = single(recipe).set_index("date")
    assert set(table.shadow) == {"next"} and set(table.route) == {"loans"}
    for day, shift in ((FIRST, 0.0), (SECOND, 30.0)):
        agree: list[bool] = []
        # What was too large for the log has no outputs there.
        for call in range(100):
            for age, income in filled.applicants(call, 2, shift):
                # The shadow has 0 for what is missing and takes no income above 50.
                live = math.isnan(income) or income > age
                agree.append(live == (not math.isnan(income) and min(income, 50) > age))
        assert table.pairs[day] == 448
        assert table.agreement[day] == pytest.approx(sum(agree) / len(agree))
        assert 0.1 < table.agreement[day] < 0.9


def check_sampled(recipe: Recipe, log: filled.Filled) -> None:
    table = single(recipe).set_index("date")
    for day in (FIRST, SECOND):
        kept = len(sampled_ids(log, day))
        assert table.kept[day] == kept and table.calls[day] == pytest.approx(2 * kept)
        # Six standard deviations about the 400 calls that were made.
        assert abs(table.calls[day] - 400) < 120
    assert (table.mean_us > 0).all()


def check_drift(recipe: Recipe, log: filled.Filled) -> None:
    drift = recipe.names["drift"]
    assert drift["in_age"] < 0.1 and drift["in_income"] > 0.25


def check_left_out(recipe: Recipe, log: filled.Filled) -> None:
    table = single(recipe).dropna().set_index(["model", "what"]).lines
    assert set(table.index.get_level_values("what")) >= {
        "in.name redacted", "out.greeting redacted",
    }  # fmt: skip
    [omitted] = [what for what in table.loc["credit"].index if what.startswith("in.applicant")]
    assert "too large" in omitted or "left out" in omitted, omitted
    # Of the call that was too large, and of those of a wrong shape.
    assert table["credit", omitted] == 2 * (48 + 10)


def check_schemas(recipe: Recipe, log: filled.Filled) -> None:
    lines, schemas = recipe.tables
    assert lines.days.tolist() == [1, 1] and lines.schema.nunique() == 2
    assert lines.debts[0] == 0 and lines.debts[1] == lines.ages[1] > 0 and lines.ages[0] > 0
    assert len(schemas) == 2
    assert sorted('"debts"' in text for text in schemas.schema) == [False, True]


CHECKS: dict[str, Callable[[Recipe, filled.Filled], None]] = {
    "Reading": check_reading,
    "How calls ended": check_ends,
    "Error rate by hour and version": check_errors,
    "Missing values and ranges of a feature": check_missing,
    "Latency by arm": check_latency,
    "Where a shadow agrees with the live answer": check_agreement,
    "All calls from sampled ones": check_sampled,
    "Drift between two days": check_drift,
    "What was left out or redacted": check_left_out,
    "Two schemas as one table": check_schemas,
}


def test_every_recipe_has_a_check() -> None:
    assert list(dict.fromkeys(heading for heading, _, _ in blocks())) == list(CHECKS)


@pytest.mark.parametrize("heading", CHECKS)
def test_a_recipe_gives_what_was_called(
    heading: str, recipes: dict[str, Recipe], log: filled.Filled
) -> None:
    CHECKS[heading](recipes[heading], log)


def test_what_becomes_of_an_answer_corrects_the_line_of_its_own_call_alone() -> None:
    database = duckdb.connect()
    kept = """(1, 'answered', false, NULL), (2, 'replayed', false, 'b'), (2, 'cancelled', true, 'b'),
        (3, 'replayed', false, ''), (4, 'answered', false, 'replay-019a')"""
    database.sql(f"""CREATE TABLE log AS SELECT 'p' AS prediction_id, NULL AS error, NULL AS shadow, *
        FROM (VALUES {kept}) AS kept(arrived, status, amends, caller_id)""")
    [view] = [text for heading, _, text in blocks() if heading == "How calls ended" and "VIEW" in text]
    database.sql(view)
    ended = database.sql("SELECT arrived, status FROM calls ORDER BY arrived").fetchall()
    assert ended == [(1, "answered"), (2, "cancelled"), (3, "replayed")]


def test_commands_of_the_document_run(log: filled.Filled) -> None:
    [text] = [text for _, language, text in blocks() if language == "sh"]
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "penstock", line
        done = subprocess.run(
            [harness.gateway_binary(), *words[1:]],
            cwd=log.folder.parent,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    assert (log.folder.parent / "hour.csv").exists()


def test_the_example_hands_the_log_to_evidently(log: filled.Filled) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE],
        cwd=log.folder.parent,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    verdicts = {
        line.split()[0]: line.split(maxsplit=2)[2]
        for line in done.stdout.splitlines()
        if line.endswith(("DRIFTS", "as before"))
    }
    assert verdicts == {
        "in_age": "as before", "in_income": "DRIFTS",
        "out_low": "as before", "out_high": "DRIFTS",
    }  # fmt: skip
    assert "in_income" in (log.folder.parent / "drift.html").read_text()
