"""Starts the real gateway on a repository of its own and stops it; no client library in here."""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
MODELS = ROOT / "models"

# Starting loads and warms every model; a debug build on a busy machine takes its time.
START_SECONDS = 120
STOP_SECONDS = 40

DTYPES = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
)  # fmt: skip


def program(variable: str, default: str, build: str) -> Path:
    """A built program: the one that the environment names, or the one in target/debug."""
    path = Path(os.environ.get(variable) or ROOT / "target" / "debug" / default)
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} is missing: run `{build}`, or name another in {variable}")
    return path


def gateway_binary() -> Path:
    """The gateway under test."""
    return program("PENSTOCK_BINARY", "penstock", "cargo build -p penstock")


def write_torchscript_fixtures(folder: Path) -> None:
    """Writes the small TorchScript models (add_sub, dict_out, throws, …) into `folder`."""
    build = "cargo build -p engine-torch --example fixtures"
    maker = program("PENSTOCK_FIXTURES", "examples/fixtures", build)
    made = subprocess.run([maker, folder], capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, f"{maker} failed:\n{made.stderr}"


def write_identity(
    folder: Path, dtype: str, max_batch_size: int = 8, name: str = "", more: str = ""
) -> None:
    """Writes a model that answers its input, of any size in both dimensions; `more` is TOML."""
    model = folder / (name or f"identity_{dtype.lower()}")
    (model / "1").mkdir(parents=True)
    shape = f'dtype = "{dtype}"\nshape = [-1, -1]\n'
    (model / "model.toml").write_text(
        f'platform = "identity"\nmax_batch_size = {max_batch_size}\n'
        f'[[input]]\nname = "x"\n{shape}[[output]]\nname = "y"\n{shape}{more}'
    )


def write_certificates(folder: Path) -> None:
    """Writes authorities, servers' and callers' certificates into `folder`."""
    build = "cargo build -p penstock --example certificates"
    maker = program("PENSTOCK_CERTIFICATES", "examples/certificates", build)
    made = subprocess.run([maker, folder], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, f"{maker} failed:\n{made.stderr}"


def add_to_manifest(model: Path, more: str) -> None:
    """Adds tables to a model's manifest."""
    manifest = model / "model.toml"
    manifest.write_text(f"{manifest.read_text()}\n{more}\n")


def set_max_batch_size(model: Path, size: int) -> None:
    """Changes how many items a batch of the model may have."""
    manifest = model / "model.toml"
    line = f"max_batch_size = {size}"
    text, changed = re.subn(r"(?m)^max_batch_size = \d+$", line, manifest.read_text())
    assert changed == 1, text
    manifest.write_text(text)


def warm_only_single_rows(model: Path) -> None:
    """Lets a model that breaks its promise for larger batches get past its warm-up."""
    add_to_manifest(model, "[warmup]\nbatch_sizes = [1]")


def copy_models(source: Path, target: Path, *names: str) -> None:
    """Copies models (all without `names`) from one repository into another."""
    for name in names or [entry.name for entry in source.iterdir() if entry.is_dir()]:
        shutil.copytree(source / name, target / name)


@dataclass
class Gateway:
    """A running gateway."""

    process: subprocess.Popen[bytes]
    repository: Path
    log: Path
    summary: dict[str, Any] = field(default_factory=dict)
    stopping: bool = False
    ended: bool = False

    @property
    def http(self) -> str:
        """HOST:PORT of the HTTP door."""
        return str(self.summary["http"])

    @property
    def grpc(self) -> str:
        """HOST:PORT of the gRPC door."""
        return str(self.summary["grpc"])

    @property
    def metrics(self) -> str:
        """HOST:PORT of the metrics door."""
        return str(self.summary["metrics"])

    @property
    def admin(self) -> str:
        """HOST:PORT of the admin door."""
        return str(self.summary["admin"])

    def log_text(self) -> str:
        """What the gateway has logged so far."""
        return self.log.read_text(errors="replace")

    def begin_stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Asks it to stop, as a supervisor would."""
        assert self.process.poll() is None, (
            f"the gateway had ended by itself:\n{self._end_of_log()}"
        )
        self.stopping = True
        self.process.send_signal(number)

    def stop(self) -> None:
        """Stops it, if nobody has yet; it must end by itself, with status 0."""
        if self.ended:
            return
        self.ended = True
        if not self.stopping:
            self.begin_stop()
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"no end after the signal:\n{self._end_of_log()}") from None
        assert status == 0, f"exit status {status} after the signal:\n{self._end_of_log()}"

    def _end_of_log(self) -> str:
        return self.log_text()[-4000:]

    def wait_for_summary(self) -> None:
        """Waits for the line of JSON that says what is served and where."""
        assert self.process.stdout is not None
        stdout, line = self.process.stdout, b""
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise AssertionError(f"not ready in {START_SECONDS} s:\n{self._end_of_log()}")
                read = os.read(stdout.fileno(), 65536)
                assert read, f"the gateway ended at its start:\n{self._end_of_log()}"
                line += read
        self.summary = json.loads(line)


def start(
    folder: Path,
    repository: Path,
    settings: str = "",
    poll: str = "off",
    stderr: int | None = None,
    environment: dict[str, str] | None = None,
) -> Gateway:
    """Starts a gateway on `repository`, with `settings` (TOML) on top; `folder` takes its files.

    The folder is not polled, if not told otherwise: models change only when a test says so. The
    log goes to a file, or to the descriptor `stderr`.
    """
    config, log = folder / "penstock.toml", folder / "log.txt"
    text = f'version = 1\n[repository]\npath = "{repository}"\npoll = "{poll}"\n'
    config.write_text(text + settings)
    doors = [f"--{door}=127.0.0.1:0" for door in ("http", "grpc", "metrics", "admin")]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [gateway_binary(), "serve", "--json", *doors, config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file if stderr is None else stderr,
            env=os.environ | (environment or {}),
        )
    gateway = Gateway(process, repository, log)
    try:
        gateway.wait_for_summary()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return gateway


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    """The sum of all series of a metric that have these labels."""
    url = f"http://{gateway.metrics}/metrics"
    with urllib.request.urlopen(url, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    total = 0.0
    for line in lines:
        series, _, value = line.rpartition(" ")
        found, _, given = series.partition("{")
        if found == name and wanted <= set(given.rstrip("}").split(",")):
            total += float(value)
    return total


def waiting(gateway: Gateway, model: str) -> int:
    """Calls of a model that wait because the engine is busy with another."""
    return int(metric(gateway, "nv_inference_pending_request_count", model=model))


def running(gateway: Gateway, model: str) -> int:
    """Batches of a model that the engine has in hand."""
    return int(metric(gateway, "penstock_batches_running", model=model))


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
