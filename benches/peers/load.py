"""Load on a running server, always by `penstock-loadtest run`, and what it costs the server."""

from __future__ import annotations

import json
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import TICKS, Process
from servers.base import Launch

PROTOCOLS = ("http-json", "http-binary", "grpc")
# On top of the time that a run is to take.
PATIENCE = 90.0
CHECK_CALLERS = 4


class LoadFailed(Exception):
    """A run that gave no figures, or wrong answers."""


@dataclass(frozen=True)
class Window:
    """What one run measured."""

    requests_per_second: float
    p50_us: float
    p99_us: float
    cpu_us_per_request: float
    answered: int
    failed: int
    # The part of the machine that neither the server nor the load had, and that was not idle.
    foreign_share: float


@dataclass(frozen=True)
class Spent:
    """Processor seconds so far: of the server, of the load, of the whole machine, and how many there were."""

    server: float
    load: float
    machine: float
    available: float

    @classmethod
    def until_now(cls, server: Process) -> Spent:
        """Reads them all."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        # user, nice, system, idle, iowait, irq, softirq, steal; guests are part of user and nice.
        ticks = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = ticks[3] + ticks[4]
        return cls(
            server=server.cpu_seconds(),
            load=children.ru_utime + children.ru_stime,
            machine=(sum(ticks) - idle) / TICKS,
            available=sum(ticks) / TICKS,
        )

    def foreign_share_since(self, before: Spent) -> float:
        """What others had of the machine in between."""
        ours = self.server - before.server + self.load - before.load
        others = self.machine - before.machine - ours
        return max(others, 0.0) / max(self.available - before.available, 1 / TICKS)


@dataclass(frozen=True)
class Client:
    """The load generator and what it sends."""

    binary: Path
    data: Path

    def check(self, launch: Launch, protocol: str, expected: list[Path], rows: int) -> None:
        """Sends every row once and compares each answer with what is expected."""
        options = ["--requests", str(rows), "--callers", str(CHECK_CALLERS)]
        options += ["--expect", *map(str, expected)]
        report = self._run(launch, protocol, options, PATIENCE)
        if report["failed"]:
            kind, error = next(iter(report["errors"].items()))
            raise LoadFailed(f"{report['failed']} of {rows} requests failed, {kind}: {error['example']}")
        if report["mismatches"] or report["checked"] != rows:
            raise LoadFailed(f"{report['mismatches']} of {report['checked']} answers are wrong: {report['mismatch']}")

    def measure(self, launch: Launch, server: Process, protocol: str, callers: int, seconds: float) -> Window:
        """Keeps so many callers busy for so long."""
        options = ["--duration", f"{round(seconds * 1000)}ms", "--callers", str(callers)]
        before = Spent.until_now(server)
        report = self._run(launch, protocol, options, seconds + PATIENCE)
        after = Spent.until_now(server)
        if not report["answered"]:
            raise LoadFailed(f"no request was answered: {report['errors']}")
        return Window(
            requests_per_second=report["requests_per_second"],
            p50_us=report["latency_us"]["p50"],
            p99_us=report["latency_us"]["p99"],
            cpu_us_per_request=(after.server - before.server) / report["answered"] * 1e6,
            answered=report["answered"],
            failed=report["failed"],
            foreign_share=after.foreign_share_since(before),
        )

    def _run(self, launch: Launch, protocol: str, options: list[str], patience: float) -> dict[str, Any]:
        command = [str(self.binary), "run", "--json", "--protocol", protocol, "--model", launch.model]
        command += ["--url", launch.http, "--data", str(self.data), *options]
        if launch.grpc is not None:
            command += ["--grpc", launch.grpc]
        try:
            # With wrong answers its exit status is an error, but its figures are there.
            done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"the load did not end within {patience:.0f} s") from None
        try:
            report: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise LoadFailed(done.stderr.strip().replace("\n", " ")[-300:] or "the load printed nothing") from None
        return report
