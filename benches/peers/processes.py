"""Servers as processes: started in a session of their own, measured and ended with all their children."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# How long a server may take to end before it is killed.
END_PATIENCE = 10.0


@dataclass(frozen=True)
class Memory:
    """Memory of all processes of a server, in bytes."""

    # What each has in main memory, added up: pages that several share count several times.
    resident: int
    # The same with each shared page divided among those that share it.
    proportional: int


class Process:
    """A server and everything that it starts, recognised by the session that they share."""

    def __init__(self, command: list[str], environment: dict[str, str], folder: Path, log: Path) -> None:
        self.log = log
        with log.open("wb") as sink:
            self._child = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._session = self._child.pid

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended."""
        return self._child.poll()

    def last_words(self) -> str:
        """What its log says of its end: the first line that names a failure, and the last one."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        failures = [line for line in lines if re.search(r"\w(Error|Exception)\b|failed|cannot", line)]
        return " … ".join(dict.fromkeys(line[:200] for line in failures[:1] + lines[-1:])) or "none"

    def cpu_seconds(self) -> float:
        """Processor time of all its processes, ended ones included, from their start."""
        # From the third field on: state, parent, group, session …; 11 to 14 are times, of the process
        # itself and of children that it has waited for.
        return sum(sum(map(int, fields[11:15])) for fields in self._members().values()) / TICKS

    def memory(self) -> Memory:
        """What its processes hold now."""
        resident = proportional = 0
        for pid in self._members():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:  # it has just ended
                continue
            sizes = {line.split(":")[0]: line.split()[1] for line in rollup.splitlines()[1:]}
            resident += int(sizes["Rss"]) * 1024
            proportional += int(sizes["Pss"]) * 1024
        return Memory(resident, proportional)

    def pause(self) -> None:
        """Stops every process, so that it takes nothing from the server that is measured."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets them go on."""
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Asks it to stop, then kills what is left."""
        self.resume()
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + END_PATIENCE
        while self._members() and time.monotonic() < deadline:
            self._child.poll()
            time.sleep(0.05)
        self._signal(signal.SIGKILL)
        self._child.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._members():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _members(self) -> dict[int, list[str]]:
        """Its living processes with the fields of their /proc/PID/stat from the third on."""
        members = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == self._session and fields[0] not in "ZX":
                members[int(entry.name)] = fields
        return members
