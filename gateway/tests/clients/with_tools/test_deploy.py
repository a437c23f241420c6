"""The files of deploy/ without a Docker engine: schema, linter, alert rules, and the gateway
started by hand as the image would start it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import wire
from harness import ROOT, gateway_binary, program, wait_until, write_identity
from image import COMPOSE, DOCKERFILE, Container, compose, configuration, instructions, kept, mounts

PROMETHEUS = ROOT / "deploy" / "prometheus"
MODELS = ROOT / "models" / "repository"


def tool(name: str) -> str:
    """A program of this Python's environment."""
    return str(Path(sys.executable).parent / name)


def passes(*command: str | Path) -> None:
    """Runs a checker, which must be content."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def promtool() -> str:
    """Prometheus's own checker, from the system or from `scripts/clients.sh --promtool`."""
    fetched = ROOT / ".venv" / "promtool" / "bin" / "promtool"
    found = shutil.which("promtool") or (str(fetched) if fetched.exists() else None)
    if found is None:
        pytest.skip("no promtool (Debian: prometheus): `scripts/clients.sh --promtool` fetches it")
    return found


def seconds(text: str) -> float:
    """A time such as 40s or 2m."""
    match = re.fullmatch(r"(\d+)(ms|s|m)", text)
    assert match, text
    return int(match[1]) * {"ms": 0.001, "s": 1, "m": 60}[match[2]]


def test_the_compose_file_keeps_to_the_specification() -> None:
    passes(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_the_dockerfile_passes_its_linter() -> None:
    passes(tool("hadolint"), DOCKERFILE)


def test_prometheus_takes_its_configuration_and_rules() -> None:
    passes(promtool(), "check", "config", PROMETHEUS / "prometheus.yml")


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    passes(promtool(), "test", "rules", PROMETHEUS / "rules_test.yml")


@pytest.mark.parametrize("name", sorted(compose()))
def test_every_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = compose()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service and "network_mode" not in service
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{port} is open to everybody"
    if "build" not in service:
        assert re.search(r":v?\d+\.\d+", service["image"]), "a version, not the latest one"
    for source in mounts(service).values() if "volumes" in service else ():
        assert source.exists(), source


@pytest.mark.parametrize("stage", ["gateway", "loadtest"])
def test_the_images_run_as_nobody_and_need_no_shell(stage: str) -> None:
    found = instructions(stage)
    user, _, group = found["USER"][-1].partition(":")
    assert int(user) >= 10000 and int(group) >= 10000
    assert json.loads(found["ENTRYPOINT"][-1])
    assert compose()[stage]["build"]["target"] == stage


def test_what_the_image_opens_is_what_the_gateway_listens_on() -> None:
    listen = configuration()["listen"]
    ports = [listen[door].rpartition(":")[2] for door in ("http", "grpc", "metrics")]
    assert instructions("gateway")["EXPOSE"] == [" ".join(ports)]
    assert listen["admin"].startswith("127.0.0.1:"), "the admin port is for `exec` alone"
    published = [port.split(":")[2] for port in compose()["gateway"]["ports"]]
    assert published == ports[:2]
    scraped = (PROMETHEUS / "prometheus.yml").read_text()
    assert f"gateway:{ports[2]}" in scraped


def test_what_must_outlive_a_restart_lies_where_it_can_be_written() -> None:
    state = configuration()["state"]["path"]
    assert kept(compose()["gateway"]) == [state]
    assert f"--mode=0750 {state}" in " ".join(instructions("gateway")["RUN"])
    unit = (ROOT / "deploy" / "penstock.service").read_text()
    assert "ProtectSystem=strict" in unit
    folder = re.search(r"^StateDirectory=(\S+)$", unit, re.M)
    assert folder and f"/var/lib/{folder[1]}" == state and f'path = "{state}"' in unit


def test_the_container_is_given_longer_than_the_gateway_takes_to_stop() -> None:
    server = configuration()["server"]
    needs = seconds(server["stop_delay"]) + seconds(server["drain"])
    assert seconds(compose()["gateway"]["stop_grace_period"]) >= needs + 5


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    """The container's files. A gateway without libtorch gets a model that it can run."""
    made = Container.make(tmp_path / "root")
    has_torch = subprocess.run([gateway_binary(), "check", MODELS], capture_output=True)
    if has_torch.returncode != 0:
        shutil.rmtree(made.root / "models")
        write_identity(made.root / "models", "FP32", name="digits")
    made.close()
    yield made
    made.open()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_the_image_starts_is_healthy_takes_load_stops_and_writes_to_its_volume_alone(
    container: Container,
) -> None:
    service = compose()["gateway"]
    health = re.fullmatch(r".*CMD (\[.*\])", instructions("gateway")["HEALTHCHECK"][0])
    assert health
    entry, *status = json.loads(health[1])
    assert [entry] == json.loads(instructions("gateway")["ENTRYPOINT"][0])
    http, grpc, metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
    url = f"http://{http}"

    def is_healthy() -> bool:
        return container.run([*status, "--url", url]).returncode == 0

    assert not is_healthy()
    assert container.written() == []
    # Only the ports are others, since this machine has but one set of each.
    doors = [f"--http={http}", f"--grpc={grpc}", f"--metrics={metrics}", "--admin=127.0.0.1:0"]
    process = container.start([*service["command"], *doors])
    said: dict[str, bytes] = {}
    readers = [
        threading.Thread(
            target=lambda name=name: said.update({name: getattr(process, name).read()})
        )
        for name in ("stdout", "stderr")
    ]
    for reader in readers:
        reader.start()
    try:
        wait_until(lambda: process.poll() is not None or is_healthy(), 120)
        assert process.poll() is None, "it ended"
        if container.user is not None:
            assert os.stat(f"/proc/{process.pid}").st_uid == container.user
        load = compose()["loadtest"]["command"]
        words = [
            word.replace("http://gateway:8000", url)
            .replace("http://gateway:8001", f"http://{grpc}")
            .replace("60s", "1s")
            for word in load
        ]
        loader = program(
            "PENSTOCK_LOADTEST", "penstock-loadtest", "cargo build -p penstock-loadtest"
        )
        passes(loader, *words)
        assert wire.request(metrics, "GET", "/metrics").status == 200
    finally:
        if process.poll() is None:
            process.terminate()
        code = process.wait(seconds(service["stop_grace_period"]))
        for reader in readers:
            reader.join()
    assert code == 0, said["stderr"].decode()
    for line in said["stderr"].decode().splitlines():
        json.loads(line)
    assert not is_healthy()
    names = {path.name for path in container.written()}
    assert names == {"00000001.json", "audit.jsonl", "lock"}
