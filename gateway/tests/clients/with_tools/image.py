"""What deploy/Dockerfile and docker-compose.yml say, and a process started as they would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from harness import ROOT, gateway_binary

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
COMPOSE = ROOT / "docker-compose.yml"


def compose() -> dict[str, Any]:
    """The services of the compose file."""
    services: dict[str, Any] = YAML(typ="safe").load(COMPOSE)["services"]
    return services


def instructions(stage: str) -> dict[str, list[str]]:
    """Arguments of each instruction of a stage of the Dockerfile."""
    text = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", DOCKERFILE.read_text()))
    found: dict[str, list[str]] = {}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            name = rest.rpartition(" AS ")[2]
        elif name == stage:
            found.setdefault(word, []).append(rest.strip())
    assert found, f"no stage {stage}"
    return found


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """Files of this folder by their place in the container; all of them are read-only."""
    found = {}
    for volume in service["volumes"]:
        source, target, *mode = volume.split(":")
        if source.startswith("."):
            assert mode == ["ro"], volume
            found[target] = ROOT / source
    return found


def kept(service: dict[str, Any]) -> list[str]:
    """Folders in the container that outlive it: those of named volumes."""
    volumes = [volume.split(":") for volume in service["volumes"]]
    return [target for source, target, *_ in volumes if not source.startswith(".")]


def configuration() -> dict[str, Any]:
    """The gateway's configuration in the container."""
    return tomllib.loads((ROOT / "deploy" / "penstock.toml").read_text())


@dataclass
class Container:
    """A folder that stands in for the container's root, of which only volumes can be written."""

    root: Path
    # The user of the image, where this process may become it.
    user: int | None

    @classmethod
    def make(cls, root: Path) -> Container:
        """Puts binary and mounted files in their places; paths in the configuration follow."""
        programs = root / "opt" / "penstock" / "bin"
        programs.mkdir(parents=True)
        (programs / "penstock").symlink_to(gateway_binary())
        places = mounts(compose()["gateway"])
        for target, source in places.items():
            place = root / target.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, place)
                continue
            text = source.read_text()
            folders = [path for path, of in places.items() if of.is_dir()]
            for folder in [*folders, *kept(compose()["gateway"])]:
                text = text.replace(f'"{folder}"', f'"{root}{folder}"')
            place.write_text(text)
        user = instructions("gateway")["USER"][0].partition(":")[0]
        container = cls(root, int(user) if os.geteuid() == 0 else None)
        for parent in root.parents:
            if parent.owner() == root.owner():
                parent.chmod(parent.stat().st_mode | 0o011)
        if container.user is not None and container.run(["--version"]).returncode != 0:
            # The build lies where that user may not look.
            container.user = None
        for folder in container.volumes():
            folder.mkdir(parents=True)
            if container.user is not None:
                os.chown(folder, container.user, container.user)
        return container

    def volumes(self) -> list[Path]:
        """Where the container may write."""
        return [self.root / target.lstrip("/") for target in kept(compose()["gateway"])]

    def written(self) -> list[Path]:
        """Files in volumes."""
        return [path for folder in self.volumes() for path in folder.rglob("*") if path.is_file()]

    def close(self) -> None:
        """Takes the right to write from everybody, but in volumes."""
        volumes = self.volumes()
        for path in sorted(self.root.rglob("*"), reverse=True):
            if not path.is_symlink() and path not in volumes:
                path.chmod(0o555 if path.is_dir() else 0o444)
        self.root.chmod(0o555)

    def open(self) -> None:
        """Gives it back, so that the folder can be removed."""
        self.root.chmod(0o755)
        for path in self.root.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)

    def options(self) -> dict[str, Any]:
        """The image's environment and nothing of this process's."""
        variables = {}
        for line in instructions("gateway")["ENV"]:
            name, _, value = line.partition("=")
            value = value.strip('"').replace("${PATH}", "/usr/bin:/bin")
            variables[name] = value.replace("/opt/penstock", f"{self.root}/opt/penstock")
        identity = {} if self.user is None else {"user": self.user, "group": self.user}
        return {
            "env": variables,
            "cwd": "/",
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **identity,
            **({} if self.user is None else {"extra_groups": []}),
        }

    def _command(self, arguments: list[str]) -> list[str]:
        entry = json.loads(instructions("gateway")["ENTRYPOINT"][0])
        program = self.root / "opt" / "penstock" / "bin" / entry[0]
        placed = [f"{self.root}{word}" if word.startswith("/") else word for word in arguments]
        return [str(program), *entry[1:], *placed]

    def run(self, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
        """Runs the image's program to its end."""
        try:
            return subprocess.run(self._command(arguments), timeout=60, **self.options())
        except PermissionError:
            return subprocess.CompletedProcess(arguments, 126, b"", b"permission denied")

    def start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        """Starts it."""
        return subprocess.Popen(self._command(arguments), **self.options())
