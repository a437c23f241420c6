"""NVIDIA Triton: the tritonserver inside the wheel nvidia-pytriton, with two backends."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import model
from servers.base import HOST, Launch, Places, Server, Unavailable, free_ports, url

CONFIG = """\
name: "{name}"
backend: "{backend}"
max_batch_size: {batch}
input [ {{ name: "{input}" data_type: TYPE_FP32 dims: [ {width} ] }} ]
output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ {classes} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
dynamic_batching {{ max_queue_delay_microseconds: 0 }}
"""
COMMON = f"dynamic batching up to {model.MAX_BATCH} without delay, 1 instance, logs of infos off"


class Triton(Server):
    """What both have in common."""

    backend: str

    def version(self, places: Places) -> str:
        """The wheel's; it carries one version of the server."""
        return f"of nvidia-pytriton {places.version_of('triton', 'nvidia-pytriton')}"

    def prepare(self, places: Places) -> Launch:
        """A repository with the one model."""
        server = places.packages("triton") / "pytriton" / "tritonserver"
        folder = places.work / "repository" / model.NAME
        (folder / "1").mkdir(parents=True)
        shutil.copy(places.model_file, folder / "1" / "model.pt")
        (folder / "config.pbtxt").write_text(
            CONFIG.format(
                name=model.NAME,
                backend=self.backend,
                batch=model.MAX_BATCH,
                input=model.INPUT,
                width=model.WIDTH,
                output=model.OUTPUT,
                classes=model.CLASSES,
            )
        )
        environment = self.furnish(places, server, folder)
        http, grpc, metrics = free_ports(3)
        command = [str(server / "bin" / "tritonserver"), "--model-repository", str(folder.parent)]
        command += ["--backend-directory", str(server / "backends"), "--log-info", "false"]
        for door, port in (("http", http), ("grpc", grpc), ("metrics", metrics)):
            command += [f"--{door}-address", HOST, f"--{door}-port", str(port)]
        return Launch(command, url(http), url(grpc), environment)

    def furnish(self, places: Places, server: Path, folder: Path) -> dict[str, str]:
        """Adds what the backend needs; returns its environment."""
        raise NotImplementedError


class TritonLibtorch(Triton):
    """With libtorch in the server's own process."""

    name = "triton"
    title = "Triton, libtorch backend"
    backend = "libtorch"
    settings = (
        f"{COMMON}; the wheel has no libtorch backend, so benches/peers/apps/triton/backend.cc was compiled against "
        "the libtorch that Penstock uses (frozen graph, inference mode, one copy in and one out)"
    )

    def furnish(self, places: Places, server: Path, folder: Path) -> dict[str, str]:
        """Nothing but the compiled backend."""
        if not (server / "backends" / self.backend / ".complete").is_file():
            raise Unavailable(places.failure("triton-libtorch"))
        return {}


class TritonPython(Triton):
    """With PyTorch in a process of its own, over shared memory."""

    name = "triton-python"
    title = "Triton, Python backend"
    backend = "python"
    settings = f"{COMMON}; one stack and one run per batch"

    def furnish(self, places: Places, server: Path, folder: Path) -> dict[str, str]:
        """The model's code; its interpreter takes the packages that the first `python3` of PATH would."""
        shutil.copy(places.apps / "triton" / "model.py", folder / "1" / "model.py")
        first = places.installed("triton") / "bin"
        return {
            "PATH": f"{first}:{os.environ.get('PATH', os.defpath)}",
            # There is libpython.
            "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR"),
        }
