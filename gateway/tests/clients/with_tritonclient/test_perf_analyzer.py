"""Triton's load generator; optional, since it is a program of its own with libraries of its own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from harness import ROOT, Gateway

FOLDER = ROOT / ".venv" / "perf"
PROGRAM = Path(os.environ.get("PENSTOCK_PERF_ANALYZER") or FOLDER / "bin" / "perf_analyzer")
LIBRARIES = {**os.environ, "LD_LIBRARY_PATH": str(FOLDER / "lib")}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    command = [str(PROGRAM), *arguments]
    return subprocess.run(command, env=LIBRARIES, capture_output=True, text=True, timeout=60)


def why_not() -> str:
    """Why it cannot be run here, or nothing."""
    if not PROGRAM.exists():
        return "no perf_analyzer: `scripts/clients.sh --perf` fetches it"
    tried = run("--help")
    missing = re.search(r"lib\S+: cannot open shared object file", tried.stderr)
    return f"perf_analyzer does not start: {missing[0]}" if missing else ""


REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


def measure(gateway: Gateway, protocol: str, *more: str) -> str:
    """A short measurement; its report."""
    address = gateway.http if protocol == "http" else gateway.grpc
    window = ("--measurement-mode", "count_windows", "--measurement-request-count", "50")
    ended = run("-i", protocol, "-u", address, "-s", "999", "-r", "3", *window, *more)
    report = ended.stdout + ended.stderr
    assert ended.returncode == 0, report
    rate = re.search(r"throughput: ([\d.]+) infer/sec", report)
    assert rate and float(rate[1]) > 0, report
    return report


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_measures_a_batching_model_with_the_server_s_own_times(
    gateway: Gateway, protocol: str
) -> None:
    """It fails without a configuration, and hides the server's times unless they are advertised."""
    report = measure(gateway, protocol, "-m", "digits", "-b", "4", "--concurrency-range", "2:2")
    assert re.search(r"Inference count: [1-9]", report), report
    assert re.search(r"Avg request latency: \d+ usec", report), report
    assert "queue" in report and "compute infer" in report


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_it_measures_a_model_without_batching(gateway: Gateway, protocol: str) -> None:
    measure(gateway, protocol, "-m", "transpose")


def test_it_streams(gateway: Gateway) -> None:
    measure(gateway, "grpc", "-m", "add_sub", "--streaming")


def test_it_sends_json_and_wants_json(gateway: Gateway) -> None:
    json_both_ways = ("--input-tensor-format", "json", "--output-tensor-format", "json")
    measure(gateway, "http", "-m", "add_sub", *json_both_ways)


def test_it_sends_shapes_of_its_own(gateway: Gateway) -> None:
    shapes = ("--shape", "values:7", "--shape", "mask:7")
    # Its random bytes are no valid BOOL elements; zeros are.
    measure(gateway, "http", "-m", "masked_sum", *shapes, "--input-data", "zero")
    measure(gateway, "grpc", "-m", "identity_bytes", "--shape", "x:3", "--string-length", "20")
