"""A look into a prediction log, cell by cell: what it holds, and whether its inputs drift.

Run it in the folder that holds `predictions/`, as a program or in an editor that knows `# %%`.
It needs duckdb, pandas and evidently.
"""

# %% The log as one table, whichever versions wrote it. Evidently tells nobody that it is used.
import os

os.environ["DO_NOT_TRACK"] = "1"

import duckdb
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset, DataSummaryPreset

FILES = "predictions/files/**/*.parquet"
db = duckdb.connect()
log = db.sql(f"""
    SELECT * FROM read_parquet('{FILES}', union_by_name = true, hive_partitioning = true,
                               hive_types = {{'version': VARCHAR, 'hour': VARCHAR}})
""")

# %% What there is.
held = log.aggregate("model, version, date, count(*) AS lines", "model, version, date")
print(held.order("model, version, date").df().to_string(index=False))

# %% Inputs and answers of one model as a frame of pandas: answered calls, no shadows, no replays.
# Put the name of yours here.
MODEL = "credit"
lines = log.filter(
    f"model = '{MODEL}' AND status = 'answered' AND shadow IS NULL AND NOT amends "
    "AND NOT coalesce(caller_id LIKE 'replay-%', false)"
).df()
if lines.empty:
    raise SystemExit(f"no answered calls of '{MODEL}': put the name of your model in MODEL")
columns = [name for name in lines.columns if name.startswith(("in_", "out_"))]
numbers = lines[columns].select_dtypes("number").dropna(axis="columns", how="all").columns
print(lines[numbers].describe().loc[["count", "min", "mean", "max"]].to_string())

# %% The last day against the one before it, or the halves of the only one. Features that one of
# both lacks are left out.
days = [part for _, part in sorted(lines.groupby("date"), key=lambda day: day[0])]
if len(days) == 1:
    ordered = days[0].sort_values("arrived")
    days = [ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]]
before, after = days[-2:]
shared = [name for name in numbers if before[name].notna().any() and after[name].notna().any()]
definition = DataDefinition(numerical_columns=shared)
reference, current = (
    Dataset.from_pandas(part[shared], data_definition=definition) for part in (before, after)
)
drift = DataDriftPreset(num_method="psi", num_threshold=0.1)
result = Report([drift, DataSummaryPreset()]).run(current, reference)
result.save_html("drift.html")

# %% In short.
for metric in result.dict()["metrics"]:
    if metric["metric_name"].startswith("ValueDrift"):
        is_drift = metric["value"] > metric["config"]["threshold"]
        verdict = "DRIFTS" if is_drift else "as before"
        print(f"{metric['config']['column']:12} {metric['value']:.3f} {verdict}")
