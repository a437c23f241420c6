"""A comparison as a Markdown page for people and as JSON for scripts."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from campaign import Contestant, Outcome, Plan, ratios
from load import Window

# What is known of the machine and the run.
Facts = dict[str, Any]

# A result with more from others than this says so.
QUIET = 0.05

TITLES = {
    "http-json": "HTTP, numbers in JSON",
    "http-binary": "HTTP, binary tensors",
    "grpc": "gRPC, raw tensors",
}


def median(windows: list[Window], figure: Callable[[Window], float]) -> float:
    """The middle one of a figure."""
    return statistics.median(map(figure, windows))


def rate(window: Window) -> float:
    """Requests per second."""
    return window.requests_per_second


def cost(window: Window) -> float:
    """The server's processor time for a request."""
    return window.cpu_us_per_request


def noise(outcome: Outcome) -> float:
    """The part of the machine that others had, in the middle window."""
    windows = [window for each in outcome.contestants for found in each.windows.values() for window in found]
    return median(windows, lambda window: window.foreign_share) if windows else 0.0


def table(heading: list[str], rows: list[list[str]], words: int = 2) -> list[str]:
    """Lines of a Markdown table; all columns but the first few are figures."""
    rule = ["---" if index < words else "---:" for index in range(len(heading))]
    return [f"| {' | '.join(cells)} |" for cells in [heading, rule, *rows]]


def milliseconds(microseconds: float) -> str:
    """Two decimals."""
    return f"{microseconds / 1000:.2f}"


def times(ratio: float) -> str:
    """A ratio with as many digits as mean something."""
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.0f}×"


def protocol_rows(outcome: Outcome, protocol: str, callers: int) -> list[list[str]]:
    """One line for each server that was measured."""
    ours = outcome.penstock.windows.get((protocol, callers), [])
    rows = []
    for contestant in outcome.contestants:
        windows = contestant.windows.get((protocol, callers))
        if not windows:
            continue
        failed = sum(window.failed for window in windows)
        title = contestant.server.title + (f" ({failed} failed)" if failed else "")
        compared = ["1", "1"]
        if contestant is not outcome.penstock:
            compared = [
                times(statistics.median(found)) if (found := list(ratios(ours, windows, figure))) else "–"
                for figure in (rate, cost)
            ]
        rows.append(
            [
                str(callers),
                title,
                f"{median(windows, rate):,.0f}",
                milliseconds(median(windows, lambda window: window.p50_us)),
                milliseconds(median(windows, lambda window: window.p99_us)),
                f"{median(windows, cost):.1f}",
                *compared,
            ]
        )
    return rows


def server_rows(outcome: Outcome) -> list[list[str]]:
    """One line for each server that ran."""
    rows = []
    for contestant in outcome.contestants:
        ours, memory = outcome.penstock.memory, contestant.memory
        assert ours is not None and memory is not None, "memory is read at the end of every run"
        rows.append(
            [
                f"{contestant.server.title} {contestant.version}",
                contestant.server.settings,
                f"{contestant.start_seconds:.1f}",
                f"{memory.resident / 2**20:,.0f}",
                f"{memory.proportional / 2**20:,.0f}",
                times(memory.resident / ours.resident) if contestant is not outcome.penstock else "1",
            ]
        )
    return rows


def markdown(outcome: Outcome, plan: Plan, facts: Facts) -> str:
    """The page."""
    lines = [
        f"# Penstock and its peers, {facts['date']}",
        "",
        "The same TorchScript model (digits, 64 FP32 → 10 FP32, one row a request) under the same load; written by "
        "`make bench-peers`, explained in [benches/peers](../peers/README.md).",
        "",
        f"{facts['cpu']}, {facts['cores']} cores for servers and load together, {facts['memory_gib']} GiB, "
        f"{facts['system']}, kernel {facts['kernel']}; Penstock at {facts['revision']}; "
        f"other processes had {noise(outcome):.0%} of the machine in the median window"
        f"{'' if noise(outcome) < QUIET else ', too much for these figures to be quoted'}.",
        f"Medians of {plan.rounds} windows of {plan.seconds:g} s, in turns; ratios are medians over the rounds, "
        "each to Penstock's window of the same round. Differences under 15 % mean nothing.",
    ]
    heading = ["callers", "server", "requests/s", "p50 ms", "p99 ms", "CPU µs/request"]
    heading += ["requests/s to Penstock's", "CPU to Penstock's"]
    for protocol in plan.protocols:
        rows = [row for callers in plan.callers for row in protocol_rows(outcome, protocol, callers)]
        if rows:
            lines += ["", f"## {TITLES[protocol]}", "", *table(heading, rows)]
    lines += ["", "## Servers", "", "One intra-op thread each (`OMP_NUM_THREADS=1`). Memory after the load."]
    heading = ["server", "settings", "start s", "RSS MiB", "PSS MiB", "RSS to Penstock's"]
    lines += ["", *table(heading, server_rows(outcome))]
    if outcome.gaps:
        lines += ["", "## Not measured", ""]
        rows = [[server.title, protocol or "all", why.replace("|", "\\|")] for server, protocol, why in outcome.gaps]
        lines += table(["server", "protocol", "reason"], rows, words=3)
    return "\n".join(lines) + "\n"


def as_json(outcome: Outcome, plan: Plan, facts: Facts) -> dict[str, Any]:
    """Every window, so that other figures can be had from it."""
    return {
        "machine": facts,
        "plan": asdict(plan),
        "servers": [contestant_json(contestant, outcome) for contestant in outcome.contestants],
        "foreign_share": round(noise(outcome), 3),
        "not_measured": [
            {"server": server.name, "protocol": protocol, "reason": reason} for server, protocol, reason in outcome.gaps
        ],
    }


def contestant_json(contestant: Contestant, outcome: Outcome) -> dict[str, Any]:
    """One server."""
    measured = []
    for (protocol, callers), windows in contestant.windows.items():
        ours = outcome.penstock.windows.get((protocol, callers), [])
        measured.append(
            {
                "protocol": protocol,
                "callers": callers,
                "requests_per_second": median(windows, rate),
                "cpu_us_per_request": median(windows, cost),
                "requests_per_second_ratios": list(ratios(ours, windows, rate)),
                "cpu_ratios": list(ratios(ours, windows, cost)),
                "windows": [asdict(window) for window in windows],
            }
        )
    return {
        "name": contestant.server.name,
        "version": contestant.version,
        "settings": contestant.server.settings,
        "start_seconds": round(contestant.start_seconds, 2),
        "memory": asdict(contestant.memory) if contestant.memory else None,
        "measured": measured,
    }
