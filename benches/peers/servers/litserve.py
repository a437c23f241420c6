"""LitServe with an application that speaks the Open Inference Protocol's JSON."""

from __future__ import annotations

import model
from servers.base import Launch, Places, Server, free_ports, url


class LitServe(Server):
    """Lightning's server: FastAPI in front, a worker process behind."""

    name = "litserve"
    title = "LitServe"
    settings = f"max_batch_size {model.MAX_BATCH}, batch_timeout 0, fast_queue, 1 worker, 1 API server, log level error"
    lacks = {
        "http-binary": "does not offer binary tensors over HTTP",
        "grpc": "does not offer gRPC",
    }

    def version(self, places: Places) -> str:
        """The package's."""
        return places.version_of("litserve", "litserve")

    def prepare(self, places: Places) -> Launch:
        """Nothing but a command line."""
        python = places.installed("litserve") / "bin" / "python"
        (http,) = free_ports(1)
        command = [str(python), str(places.apps / "litserve" / "app.py"), str(places.model_file), str(http)]
        return Launch(command, url(http))
