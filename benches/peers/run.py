#!/usr/bin/env python3
"""Compares Penstock with other inference servers on one model, and prints a table.

Needs a release build of Penstock and its load generator, and the servers that scripts/peers.sh
installs; `make bench-peers` sees to both. Only the standard library is used.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import machine
import model
import report
from campaign import Campaign, Plan
from load import PROTOCOLS, Client
from servers import PEERS
from servers.base import Unavailable

Number = TypeVar("Number", int, float)

ROOT = Path(__file__).resolve().parents[2]


def some_of(known: list[str]) -> Callable[[str], list[str]]:
    """Reads a list with commas in between, of known words."""

    def read(text: str) -> list[str]:
        words = [word for word in text.split(",") if word]
        if unknown := [word for word in words if word not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return list(dict.fromkeys(words))

    return read


def numbers(text: str) -> list[int]:
    """Reads counts with commas in between."""
    try:
        found = [int(word) for word in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no list of whole numbers from 1 on")
    return found


def at_least(least: float, kind: type[Number]) -> Callable[[str], Number]:
    """Reads a number that is not too small."""

    def read(text: str) -> Number:
        number = kind(text)
        if not number >= least:
            raise argparse.ArgumentTypeError(f"'{text}' is less than {least}")
        return number

    return read


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = list(PEERS)
    release = ROOT / "target" / "release"
    parser.add_argument("--peers", type=some_of(known), default=known, help=f"some of {','.join(known)} (all)")
    parser.add_argument(
        "--protocols",
        type=some_of(list(PROTOCOLS)),
        default=list(PROTOCOLS),
        help=f"some of {','.join(PROTOCOLS)} (all)",
    )
    parser.add_argument("--callers", type=numbers, default=[1, 16, 64], help="callers at the same time (1,16,64)")
    parser.add_argument("--seconds", type=at_least(0.5, float), default=4.0, help="length of a window (4)")
    parser.add_argument("--rounds", type=at_least(1, int), default=3, help="windows of each combination (3)")
    parser.add_argument("--gateway", type=Path, default=release / "penstock", help="Penstock's binary")
    parser.add_argument("--loadtest", type=Path, default=release / "penstock-loadtest", help="the load generator's")
    parser.add_argument("--results", type=Path, default=ROOT / "benches" / "results", help="folder for the results")
    parser.add_argument("--keep-logs", type=Path, help="folder to copy the servers' logs to")
    return parser.parse_args()


def say(line: str) -> None:
    """Progress goes beside the result, not into it."""
    print(f"peers: {line}", file=sys.stderr, flush=True)


def stop(*_: object) -> None:
    """A request to end is answered like Ctrl-C: every server is ended first."""
    raise KeyboardInterrupt


def main() -> int:
    """Runs everything; the status is 0 when Penstock was measured, whatever happened to its peers."""
    options = arguments()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    for binary in (options.gateway, options.loadtest):
        if not binary.is_file():
            say(f"error: {binary} is missing: cargo build --release -p penstock -p penstock-loadtest")
            return 1
    plan = Plan(options.protocols, options.callers, options.rounds, options.seconds)
    client = Client(options.loadtest.resolve(), model.data_in(ROOT))
    today = datetime.date.today().isoformat()
    facts = {"date": today, **machine.describe(ROOT)}
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="penstock-peers-") as folder:
        work = Path(folder)
        try:
            with Campaign(plan, client, ROOT, options.gateway.resolve(), work, say) as campaign:
                outcome = campaign.run([PEERS[name] for name in options.peers])
        except Unavailable as reason:
            say(f"error: penstock {reason}")
            return 1
        except KeyboardInterrupt:
            say("stopped; every server was ended")
            return 130
        finally:
            if options.keep_logs:
                options.keep_logs.mkdir(parents=True, exist_ok=True)
                for log in work.glob("*.log"):
                    (options.keep_logs / log.name).write_bytes(log.read_bytes())
    facts["run_seconds"] = round(time.monotonic() - started)
    page = report.markdown(outcome, plan, facts)
    options.results.mkdir(parents=True, exist_ok=True)
    target = options.results / f"peers-{today}"
    target.with_suffix(".md").write_text(page)
    target.with_suffix(".json").write_text(json.dumps(report.as_json(outcome, plan, facts), indent=1) + "\n")
    print(page)
    say(f"{facts['run_seconds']} s; written to {target}.md and .json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
