"""What a result says about where it was taken: enough to judge it, nothing that names the machine."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path


def describe(root: Path) -> dict[str, str | int]:
    """Processor, cores, memory, kernel and the code's revision."""
    return {
        "cpu": first_match(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo")) or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": first_match(r'PRETTY_NAME="(.+)"', Path("/etc/os-release")) or platform.system(),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "python": platform.python_version(),
        "revision": revision(root),
    }


def first_match(pattern: str, file: Path) -> str | None:
    """The first group of the first match in a file."""
    try:
        match = re.search(pattern, file.read_text())
    except OSError:
        return None
    return match[1].strip() if match else None


def revision(root: Path) -> str:
    """The commit, and whether the code differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + (
            " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
