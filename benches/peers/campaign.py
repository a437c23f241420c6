"""One comparison: every server started and checked, then windows of load in turns."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

import model
from load import Client, LoadFailed, Window
from processes import Memory, Process
from servers import PENSTOCK
from servers.base import Launch, Places, Server, Unavailable

# How long a server may take until it answers: Java, PyTorch and workers start slowly.
START_PATIENCE = 90.0
POLL = 0.25
# How far an answer may be from Penstock's.
TOLERANCE = 1e-4
# Load before the first window of each combination, which is not counted.
WARM_UP_SECONDS = 1.0

# What asking a server raises that has no good answer yet, or never.
NO_ANSWER = (OSError, HTTPException, model.WrongAnswer, ValueError, LookupError)

Say = Callable[[str], None]
# By output, a list of numbers for each row of the data.
Expected = dict[str, list[list[float]]]


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    protocols: list[str]
    callers: list[int]
    rounds: int
    seconds: float


@dataclass
class Contestant:
    """A server in the run."""

    server: Server
    places: Places
    version: str
    launch: Launch
    process: Process
    start_seconds: float
    memory: Memory | None = None
    # Protocols that it is measured on.
    protocols: list[str] = field(default_factory=list)
    windows: dict[tuple[str, int], list[Window]] = field(default_factory=dict)


@dataclass
class Outcome:
    """Everything that a run found out."""

    contestants: list[Contestant]
    # Server, protocol or nothing for all of them, and the reason.
    gaps: list[tuple[Server, str | None, str]]

    @property
    def penstock(self) -> Contestant:
        """What the others are compared with."""
        return self.contestants[0]


class Campaign:
    """Runs a plan; use it as a context, so that every server ends with it."""

    def __init__(self, plan: Plan, client: Client, root: Path, gateway: Path, work: Path, say: Say) -> None:
        self._plan = plan
        self._client = client
        self._root = root
        self._gateway = gateway
        self._work = work
        self._say = say
        self._stack = ExitStack()
        self._outcome = Outcome([], [])

    def __enter__(self) -> Campaign:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, peers: list[Server]) -> Outcome:
        """Starts, checks and measures; what fails is left out and its reason kept."""
        rows = model.read_rows(self._client.data)
        # Without Penstock there is nothing to compare with: its failure ends the run.
        penstock = self._start(PENSTOCK, rows[0])
        expected = self._expected(penstock, rows)
        self._admit(penstock, expected, rows)
        if not self._outcome.contestants:
            raise Unavailable("passes none of its checks")
        for server in peers:
            try:
                contestant = self._start(server, rows[0])
            except Unavailable as reason:
                self._gap(server, None, str(reason))
                continue
            self._admit(contestant, expected, rows)
        for protocol in self._plan.protocols:
            for callers in self._plan.callers:
                self._measure(protocol, callers)
        for contestant in self._outcome.contestants:
            contestant.memory = contestant.process.memory()
        return self._outcome

    def _gap(self, server: Server, protocol: str | None, reason: str) -> None:
        self._say(f"{server.name}{f' over {protocol}' if protocol else ''}: {reason}")
        self._outcome.gaps.append((server, protocol, reason))

    def _start(self, server: Server, row: list[float]) -> Contestant:
        """Starts a server and waits for its first answer."""
        places = Places(self._root, self._gateway, self._work / server.name)
        places.work.mkdir()
        try:
            version = server.version(places)
            launch = server.prepare(places)
        except (OSError, ValueError) as error:
            raise Unavailable(places.neutral(f"cannot be prepared: {error}")) from error
        self._say(f"starting {server.name} {version}")
        started = time.monotonic()
        log = self._work / f"{server.name}.log"
        process = Process(launch.command, launch.full_environment(), places.work, log)
        self._stack.callback(process.end)
        answer = "none"
        while time.monotonic() - started < START_PATIENCE:
            try:
                model.infer(launch.http, launch.model, row, START_PATIENCE)
            except NO_ANSWER as error:
                answer = str(error)
            else:
                return Contestant(server, places, version, launch, process, time.monotonic() - started)
            if process.status is not None:
                raise Unavailable(places.neutral(f"ended at its start: {process.last_words()}"))
            time.sleep(POLL)
        process.end()
        last_words = places.neutral(process.last_words())
        raise Unavailable(f"did not answer within {START_PATIENCE:.0f} s: {answer}; its last words: {last_words}")

    def _expected(self, penstock: Contestant, rows: list[list[float]]) -> Expected:
        """What Penstock answers to every row alone."""
        launch = penstock.launch
        return {model.OUTPUT: [model.infer(launch.http, launch.model, row, START_PATIENCE)[1] for row in rows]}

    def _admit(self, contestant: Contestant, expected: Expected, rows: list[list[float]]) -> None:
        """Checks every protocol that the server offers; those that pass are measured."""
        server, launch, places = contestant.server, contestant.launch, contestant.places
        try:
            version, answer = model.infer(launch.http, launch.model, rows[0], START_PATIENCE)
            off = max(abs(a - b) for a, b in zip(answer, expected[model.OUTPUT][0], strict=True))
        except NO_ANSWER as error:
            self._gap(server, None, places.neutral(f"failed its check: {error}"))
            contestant.process.end()
            return
        if off > TOLERANCE:
            self._gap(server, None, f"its answer differs from Penstock's by {off}")
            contestant.process.end()
            return
        # Some name their version over one protocol and not over the other.
        files = []
        for number, name in enumerate(sorted({version, "", "1"})):
            files.append(places.work / f"expected-{number}.json")
            files[-1].write_text(json.dumps({"version": name, "outputs": expected}))
        for protocol in self._plan.protocols:
            if protocol in server.lacks:
                self._gap(server, protocol, server.lacks[protocol])
                continue
            try:
                self._client.check(launch, protocol, files, len(rows))
            except LoadFailed as reason:
                self._gap(server, protocol, places.neutral(f"failed its check: {reason}"))
                continue
            contestant.protocols.append(protocol)
        if not contestant.protocols:
            contestant.process.end()
            return
        contestant.process.pause()
        self._outcome.contestants.append(contestant)

    def _measure(self, protocol: str, callers: int) -> None:
        """All rounds of one combination: within a round, each server has its window."""
        running = [each for each in self._outcome.contestants if protocol in each.protocols]
        for number in range(-1, self._plan.rounds):
            for contestant in running:
                if protocol not in contestant.protocols:  # failed in an earlier round
                    continue
                try:
                    window = self._window(contestant, protocol, callers, warm_up=number < 0)
                except LoadFailed as reason:
                    self._gap(contestant.server, protocol, f"failed at {callers} callers: {reason}")
                    contestant.protocols.remove(protocol)
                    continue
                if number >= 0:
                    contestant.windows.setdefault((protocol, callers), []).append(window)
        for contestant in running:
            if windows := contestant.windows.get((protocol, callers)):
                rate = statistics.median(window.requests_per_second for window in windows)
                cost = statistics.median(window.cpu_us_per_request for window in windows)
                self._say(f"{protocol}, {callers} callers: {contestant.server.name} {rate:.0f}/s, {cost:.1f} µs of CPU")

    def _window(self, contestant: Contestant, protocol: str, callers: int, *, warm_up: bool) -> Window:
        seconds = WARM_UP_SECONDS if warm_up else self._plan.seconds
        process = contestant.process
        process.resume()
        try:
            return self._client.measure(contestant.launch, process, protocol, callers, seconds)
        finally:
            process.pause()


def ratios(ours: list[Window], theirs: list[Window], figure: Callable[[Window], float]) -> Iterator[float]:
    """Theirs as a multiple of ours, round by round."""
    return (figure(their) / figure(our) for our, their in zip(ours, theirs, strict=False) if figure(our))
