"""Fixtures for both clients: the gateway that most tests share, and gateways of other kinds."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness

pytest.register_assert_rewrite("calls", "replayed", "routed", "wire")

StartGateway = Callable[..., harness.Gateway]

# No test takes longer, nor what is set up for it or cleared away after it.
PATIENCE = 300
# How long the exception of a test that took longer may take to end it.
GRACE = 60
# What the process says last, past pytest's capture.
STDERR = pytest.StashKey[Any]()


def pytest_configure(config: pytest.Config) -> None:
    """Has tests that wait for ever fail, with the stacks of all threads."""
    config.stash[STDERR] = stderr = os.fdopen(os.dup(2), "w")

    def fail(*_: object) -> None:
        faulthandler.dump_traceback(stderr)
        pytest.fail(f"no end after {PATIENCE} s")

    signal.signal(signal.SIGALRM, fail)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends a process whose threads do not."""
    faulthandler.dump_traceback_later(GRACE, exit=True, file=config.stash[STDERR])


@contextmanager
def limited(item: pytest.Item) -> Iterator[None]:
    """Ends what takes too long: by an exception, and the process where that does not help."""
    if item.get_closest_marker("soak"):
        yield
        return
    stderr = item.config.stash[STDERR]
    faulthandler.dump_traceback_later(PATIENCE + GRACE, exit=True, file=stderr)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """A limit for what a test needs."""
    with limited(item):
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A limit for a test."""
    with limited(item):
        yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """A limit for clearing away."""
    with limited(item):
        yield


@pytest.fixture(scope="session")
def torchscript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of small TorchScript models, to copy from."""
    folder = tmp_path_factory.mktemp("torchscript")
    harness.write_torchscript_fixtures(folder)
    return folder


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of certificates: ca, server-1 to server-3, caller, and a stranger's."""
    folder = tmp_path_factory.mktemp("certificates")
    harness.write_certificates(folder)
    return folder


@pytest.fixture(scope="session")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, torchscript: Path
) -> Iterator[harness.Gateway]:
    """The gateway that most tests share, with every model; no test changes what it serves."""
    repository = tmp_path_factory.mktemp("repository")
    harness.copy_models(harness.MODELS / "repository", repository)
    harness.copy_models(torchscript, repository)
    harness.warm_only_single_rows(repository / "drops_rows")
    # It fails whenever it is called, and has to go on being called.
    harness.add_to_manifest(repository / "drops_rows", "[breaker]\nenabled = false")
    for dtype in harness.DTYPES:
        harness.write_identity(repository, dtype)
    running = harness.start(tmp_path_factory.mktemp("gateway"), repository)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def start_gateway(
    tmp_path_factory: pytest.TempPathFactory, torchscript: Path
) -> Iterator[StartGateway]:
    """Starts a gateway of its own for a test: `start_gateway(settings, *torchscript_models)`.

    Beside the named models it serves identity_fp32 and identity_bytes, if not told otherwise.
    `prepare` gets the folder of models before the start.
    """
    running: list[harness.Gateway] = []

    def start(
        settings: str = "",
        *models: str,
        identities: bool = True,
        prepare: Callable[[Path], None] = lambda _: None,
        environment: dict[str, str] | None = None,
    ) -> harness.Gateway:
        repository = tmp_path_factory.mktemp("small-repository")
        for name in models:
            source = torchscript if (torchscript / name).is_dir() else harness.MODELS / "repository"
            harness.copy_models(source, repository, name)
        for dtype in ("FP32", "BYTES") if identities else ():
            harness.write_identity(repository, dtype)
        prepare(repository)
        folder = tmp_path_factory.mktemp("gateway")
        running.append(harness.start(folder, repository, settings, environment=environment))
        return running[-1]

    yield start
    failures = []
    for one in running:
        try:
            one.stop()
        except AssertionError as failure:
            failures.append(str(failure))
    assert not failures, "\n".join(failures)
