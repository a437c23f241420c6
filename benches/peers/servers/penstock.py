"""Penstock itself: the release binary with every default."""

from __future__ import annotations

import shutil
import subprocess

import model
from servers.base import HOST, Launch, Places, Server, Unavailable, free_ports, url

MODEL_TOML = f"""\
platform = "torchscript"
max_batch_size = {model.MAX_BATCH}

[[input]]
name = "{model.INPUT}"
dtype = "FP32"
shape = [-1, {model.WIDTH}]

[[output]]
name = "{model.OUTPUT}"
dtype = "FP32"
shape = [-1, {model.CLASSES}]
"""


class Penstock(Server):
    """What the others are compared with."""

    name = "penstock"
    title = "**Penstock**"
    settings = f"defaults; max_batch_size {model.MAX_BATCH}, max_delay 0"

    def version(self, places: Places) -> str:
        """As the binary says."""
        if not places.gateway.is_file():
            raise Unavailable("is not built: cargo build --release -p penstock -p penstock-loadtest")
        done = subprocess.run([places.gateway, "--version"], capture_output=True, text=True, check=True)
        return done.stdout.split()[-1]

    def prepare(self, places: Places) -> Launch:
        """A repository with the one model."""
        folder = places.work / "repository" / model.NAME
        (folder / "1").mkdir(parents=True)
        (folder / "model.toml").write_text(MODEL_TOML)
        shutil.copy(places.model_file, folder / "1" / "model.pt")
        http, grpc, metrics, admin = free_ports(4)
        command = [str(places.gateway), "serve", str(folder.parent)]
        doors = (("--http", http), ("--grpc", grpc), ("--metrics", metrics), ("--admin", admin))
        for door, port in doors:
            command += [door, f"{HOST}:{port}"]
        return Launch(command, url(http), url(grpc))
