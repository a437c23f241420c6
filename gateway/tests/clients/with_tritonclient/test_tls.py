"""TLS on every port: private authorities, callers' certificates, and new ones under load."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent.ssl
import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

import wire
from calls import grpc_inputs, http_inputs
from harness import Gateway, gateway_binary, metric, wait_until

X = np.array([[1, 2, 3]], np.float32)
MODEL = "identity_fp32"
# What the harness reads stays plain.
DATA = 'listeners = ["http", "grpc"]\n'


def tls(folder: Path, more: str = "", name: str = "server-1") -> str:
    """The section of the configuration."""
    return f'[tls]\ncertificate = "{folder}/{name}.pem"\nkey = "{folder}/{name}.key"\n{more}'


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, certificates: Path) -> Gateway:
    """A gateway that speaks TLS on every port."""
    return start_gateway(tls(certificates))


@pytest.fixture(scope="module")
def mutual(start_gateway: Any, certificates: Path) -> Gateway:
    """A gateway that wants to see certificates of its callers."""
    return start_gateway(tls(certificates, f'client_ca = "{certificates}/ca.pem"\n{DATA}'))


def context(folder: Path, shows: str | None = None) -> ssl.SSLContext:
    """Trusts the authority of the tests, and shows a certificate."""
    made = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if shows:
        made.load_cert_chain(folder / f"{shows}.pem", folder / f"{shows}.key")
    return made


def over_http(address: str, folder: Path, shows: str | None = None) -> Any:
    """tritonclient.http with TLS."""
    options = {"ca_certs": str(folder / "ca.pem")}
    if shows:
        options |= {"certfile": f"{folder}/{shows}.pem", "keyfile": f"{folder}/{shows}.key"}
    return tritonclient.http.InferenceServerClient(
        address, ssl=True, ssl_options=options, ssl_context_factory=gevent_context
    )


def gevent_context() -> Any:
    """What checks the server; tritonclient's own does not."""
    made = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = True
    return made


def over_grpc(address: str, folder: Path, shows: str | None = None, module: Any = None) -> Any:
    """tritonclient.grpc with TLS."""
    options = {}
    if shows:
        options = {
            "private_key": f"{folder}/{shows}.key",
            "certificate_chain": f"{folder}/{shows}.pem",
        }
    return (module or tritonclient.grpc).InferenceServerClient(
        address, ssl=True, root_certificates=f"{folder}/ca.pem", **options
    )


def test_tritonclient_calls_over_tls(gateway: Gateway, certificates: Path) -> None:
    with over_http(gateway.http, certificates) as client:
        answer = client.infer(MODEL, http_inputs({"x": X}))
        np.testing.assert_array_equal(answer.as_numpy("y"), X)
    with over_grpc(gateway.grpc, certificates) as client:
        answer = client.infer(MODEL, grpc_inputs({"x": X}))
        np.testing.assert_array_equal(answer.as_numpy("y"), X)


def test_tritonclient_calls_over_tls_in_asyncio(gateway: Gateway, certificates: Path) -> None:
    async def run() -> list[Any]:
        made = tritonclient.http.aio.InferenceServerClient(
            gateway.http, ssl=True, ssl_context=context(certificates)
        )
        async with made as client:
            first = await client.infer(MODEL, http_inputs({"x": X}))
        async with over_grpc(
            gateway.grpc, certificates, module=tritonclient.grpc.aio
        ) as client:
            return [first, await client.infer(MODEL, grpc_inputs({"x": X}))]

    for answer in asyncio.run(run()):
        np.testing.assert_array_equal(answer.as_numpy("y"), X)


def test_the_operators_ports_speak_tls_too(gateway: Gateway, certificates: Path) -> None:
    for url in (f"https://{gateway.metrics}/metrics", f"https://{gateway.admin}/v1/status"):
        with urllib.request.urlopen(url, context=context(certificates), timeout=30) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            urllib.request.urlopen(url, timeout=30)
    assert gateway.summary["tls"] == dict.fromkeys(("http", "grpc", "metrics", "admin"), "server")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_the_protocol_are_spoken(
    gateway: Gateway, certificates: Path, version: ssl.TLSVersion
) -> None:
    made = context(certificates)
    made.minimum_version = made.maximum_version = version
    with shake(gateway.http, made) as connection:
        assert connection.version() == version.name.replace("v1_", "v1.")


def test_old_versions_can_be_refused(start_gateway: Any, certificates: Path) -> None:
    modern: Gateway = start_gateway(tls(certificates, f'min_version = "1.3"\n{DATA}'))
    made = context(certificates)
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(modern.http, made)
    shake(modern.http, context(certificates)).close()


@pytest.mark.parametrize(
    "words", [b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 100]
)  # fmt: skip
def test_what_is_not_tls_is_cut_off(gateway: Gateway, certificates: Path, words: bytes) -> None:
    for address in (gateway.http, gateway.grpc, gateway.admin):
        with wire.connect(address) as connection:
            connection.sendall(words)
            connection.settimeout(5)
            assert b"HTTP" not in wire.read_until_closed(connection)
    shake(gateway.http, context(certificates)).close()


def shake(address: str, made: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection over TLS."""
    return made.wrap_socket(wire.connect(address), server_hostname="localhost")


def ask(connection: ssl.SSLSocket) -> bytes:
    """One request on a connection that stays."""
    connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
    return connection.recv(65536)


# Certificates of callers


def test_callers_with_a_certificate_are_served(mutual: Gateway, certificates: Path) -> None:
    with over_http(mutual.http, certificates, "caller") as client:
        assert client.infer(MODEL, http_inputs({"x": X})).as_numpy("y").shape == (1, 3)
    with over_grpc(mutual.grpc, certificates, "caller") as client:
        assert client.infer(MODEL, grpc_inputs({"x": X})).as_numpy("y").shape == (1, 3)
    assert mutual.summary["tls"] == {"http": "mutual", "grpc": "mutual"}


@pytest.mark.parametrize("shows", [None, "stranger"])
def test_callers_without_a_good_certificate_are_refused(
    mutual: Gateway, certificates: Path, shows: str | None
) -> None:
    refused = lambda door: metric(
        mutual, "penstock_tls_handshakes_total", protocol=door, result="refused"
    )
    before = refused("http"), refused("grpc")
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        # With TLS 1.3 the client is done before the server has looked.
        with shake(mutual.http, context(certificates, shows)) as connection:
            assert ask(connection) != b"", "refused"
            raise AssertionError("answered")
    with over_grpc(mutual.grpc, certificates, shows) as client:
        with pytest.raises(InferenceServerException) as error:
            client.infer(MODEL, grpc_inputs({"x": X}), client_timeout=5)
        assert error.value.status() in (
            "StatusCode.UNAVAILABLE",
            "StatusCode.DEADLINE_EXCEEDED",
        )
    assert refused("http") > before[0] and refused("grpc") > before[1]


def test_an_optional_certificate_may_be_left_out_but_not_be_wrong(
    start_gateway: Any, certificates: Path
) -> None:
    optional = f'client_ca = "{certificates}/ca.pem"\nclient_auth = "optional"\n{DATA}'
    gateway: Gateway = start_gateway(tls(certificates, optional))
    for shows in (None, "caller"):
        with shake(gateway.http, context(certificates, shows)) as connection:
            assert ask(connection).startswith(b"HTTP/1.1 200")
    with pytest.raises((ssl.SSLError, ConnectionResetError, AssertionError)):
        with shake(gateway.http, context(certificates, "stranger")) as connection:
            assert ask(connection)


# The command line


def status(url: str, *flags: object) -> subprocess.CompletedProcess[str]:
    """`penstock status`, as a health check asks."""
    command = [str(gateway_binary()), "status", "--url", url, *map(str, flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_the_command_line_speaks_tls(gateway: Gateway, certificates: Path) -> None:
    port = gateway.http.rsplit(":", 1)[1]
    trusts = ("--ca", certificates / "ca.pem")
    assert status(f"https://localhost:{port}", *trusts).returncode == 0
    ready = status(f"https://localhost:{port}", "--ready", *trusts)
    assert (ready.returncode, ready.stdout) == (0, "ready\n")
    strange = status(f"https://localhost:{port}", "--ca", certificates / "strange-ca.pem")
    assert strange.returncode == 1 and "certificate" in strange.stderr
    assert status(f"http://localhost:{port}").returncode == 1


def test_the_command_line_can_be_told_the_name_in_the_certificate(
    start_gateway: Any, certificates: Path
) -> None:
    gateway: Gateway = start_gateway(tls(certificates, DATA, "named"))
    url, trusts = f"https://{gateway.http}", ("--ca", certificates / "ca.pem")
    wrong = status(url, *trusts)
    assert wrong.returncode == 1 and "certificate" in wrong.stderr
    assert status(url, *trusts, "--server-name", "gateway.example").returncode == 0


def test_the_command_line_shows_its_certificate(mutual: Gateway, certificates: Path) -> None:
    url, trusts = f"https://{mutual.http}", ("--ca", certificates / "ca.pem")
    own = ("--cert", certificates / "caller.pem", "--key", certificates / "caller.key")
    assert status(url, *trusts, *own).returncode == 0
    assert status(url, *trusts).returncode == 1
    mixed = ("--cert", certificates / "caller.pem", "--key", certificates / "stranger.key")
    assert "--key" in status(url, *trusts, *mixed).stderr


def test_a_gateway_that_does_not_answer_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        ended = status(f"http://127.0.0.1:{silent.getsockname()[1]}", "--ready")
    assert ended.returncode == 1 and time.monotonic() - begun < 10


# New certificates


@pytest.fixture
def own(certificates: Path, tmp_path: Path) -> Path:
    """A folder whose certificates a test may change."""
    shutil.copytree(certificates, tmp_path / "own")
    install(tmp_path / "own", 1)
    return tmp_path / "own"


def install(folder: Path, number: int) -> None:
    """Puts certificate and key of a server in the place of the current ones."""
    for end in ("pem", "key"):
        shutil.copy(folder / f"server-{number}.{end}", folder / f"new.{end}")
        (folder / f"new.{end}").replace(folder / f"current.{end}")


def serial(address: str, folder: Path) -> int:
    """The serial number of what a new connection is shown."""
    with shake(address, context(folder)) as connection:
        shown = connection.getpeercert()
    assert shown
    return int(str(shown["serialNumber"]), 16)


def test_new_certificates_under_load_fail_no_call(start_gateway: Any, own: Path) -> None:
    gateway: Gateway = start_gateway(tls(own, f'poll = "200ms"\n{DATA}', "current"))
    done, failed, answered = threading.Event(), [], [0] * 6

    def until_done(index: int, call: Callable[[], None]) -> None:
        while not done.is_set():
            try:
                call()
            except Exception as error:
                failed.append((index, error))
            answered[index] += 1

    def keeps(index: int) -> None:
        if index % 2:
            with over_grpc(gateway.grpc, own) as client:
                until_done(index, lambda: check(client.infer(MODEL, grpc_inputs({"x": X}))))
        else:
            with shake(gateway.http, context(own)) as connection:
                until_done(index, lambda: expect(ask(connection)))

    def comes_and_goes(index: int) -> None:
        def call() -> None:
            with shake(gateway.http, context(own)) as connection:
                expect(ask(connection))

        until_done(index, call)

    works = [keeps] * 4 + [comes_and_goes] * 2
    callers = [threading.Thread(target=work, args=(i,)) for i, work in enumerate(works)]
    for caller in callers:
        caller.start()
    for number in (2, 3, 1, 2):
        install(own, number)
        wait_until(lambda number=number: serial(gateway.http, own) == number)
    done.set()
    for caller in callers:
        caller.join()
    assert not failed, failed[:3]
    assert min(answered) > 10, answered
    assert metric(gateway, "penstock_tls_reloads_total", result="loaded") == 4
    assert metric(gateway, "penstock_tls_certificate_expiry_seconds") > time.time()


def check(answer: Any) -> None:
    """The answer is right."""
    np.testing.assert_array_equal(answer.as_numpy("y"), X)


def expect(answer: bytes) -> None:
    """The answer is right."""
    assert answer.startswith(b"HTTP/1.1 200") and json.loads(answer.split(b"\r\n\r\n", 1)[1])


def test_a_signal_takes_new_certificates_at_once_and_broken_ones_change_nothing(
    start_gateway: Any, own: Path
) -> None:
    gateway: Gateway = start_gateway(tls(own, f'poll = "off"\n{DATA}', "current"))
    failed = lambda: metric(gateway, "penstock_tls_reloads_total", result="failed")
    (own / "current.key").write_text("nonsense")
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: failed() == 1)
    assert serial(gateway.http, own) == 1
    assert "nonsense" not in gateway.log_text()
    install(own, 2)
    gateway.process.send_signal(signal.SIGHUP)
    wait_until(lambda: serial(gateway.http, own) == 2)


def test_a_slow_handshake_delays_nobody(start_gateway: Any, certificates: Path) -> None:
    settings = tls(certificates, f'handshake_timeout = "2s"\n{DATA}') + "[server]\nio_threads = 1\n"
    gateway: Gateway = start_gateway(settings)
    silent = [wire.connect(gateway.http) for _ in range(50)]
    for connection in silent:
        connection.sendall(b"\x16\x03\x01\x02\0\x01")
    begun = time.monotonic()
    for _ in range(10):
        with shake(gateway.http, context(certificates)) as connection:
            expect(ask(connection))
    assert time.monotonic() - begun < 2
    for connection in silent:
        connection.settimeout(10)
        wire.read_until_closed(connection)
        connection.close()
    timeouts = metric(gateway, "penstock_tls_handshakes_total", result="timeout")
    assert timeouts == len(silent)


def test_a_handshake_under_way_does_not_hold_up_the_end(
    start_gateway: Any, certificates: Path
) -> None:
    gateway: Gateway = start_gateway(tls(certificates, DATA) + '[server]\ndrain = "8s"\n')
    with wire.connect(gateway.http), wire.connect(gateway.grpc):
        shake(gateway.http, context(certificates)).close()
        begun = time.monotonic()
        gateway.begin_stop()
        gateway.stop()
        assert time.monotonic() - begun < 4


def test_a_stop_answers_calls_over_tls_and_tells_clients_to_go(
    start_gateway: Any, certificates: Path
) -> None:
    gateway: Gateway = start_gateway(tls(certificates, DATA) + '[server]\ndrain = "8s"\n')
    root = (certificates / "ca.pem").read_bytes()
    with grpc.secure_channel(gateway.grpc, grpc.ssl_channel_credentials(root)) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        with shake(gateway.http, context(certificates)) as connection:
            connection.sendall(
                b"POST /v2/repository/index HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{"
            )
            gateway.begin_stop()
            wait_until(lambda: refuses(gateway.http))
            connection.sendall(b"}")
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer
    gateway.stop()


def refuses(address: str) -> bool:
    """Whether nobody listens any more."""
    try:
        wire.connect(address).close()
    except OSError:
        return True
    return False
