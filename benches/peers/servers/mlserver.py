"""MLServer with a custom runtime that runs the TorchScript file in the server's own process."""

from __future__ import annotations

import json
import shutil

import model
from servers.base import HOST, Launch, Places, Server, free_ports, url

COMMON = "custom runtime, parallel_workers 0, no gzip, no metrics, logs of warnings only"


class MLServer(Server):
    """Seldon's server in Python, joining requests to batches."""

    name = "mlserver"
    title = "MLServer, adaptive batching"
    # MLServer batches only where it may wait.
    max_batch_size = model.MAX_BATCH
    max_batch_time = 0.0005
    settings = f"{COMMON}; up to {max_batch_size} within {max_batch_time * 1000} ms"
    lacks = {"http-binary": "does not offer binary tensors over HTTP"}

    def version(self, places: Places) -> str:
        """The package's."""
        return places.version_of("mlserver", "mlserver")

    def prepare(self, places: Places) -> Launch:
        """A folder with the runtime and both settings files."""
        python = places.installed("mlserver") / "bin" / "python"
        folder = places.work
        http, grpc = free_ports(2)
        shutil.copy(places.apps / "mlserver" / "digits_runtime.py", folder)
        shutil.copy(places.model_file, folder / "model.pt")
        (folder / "logging.json").write_text(json.dumps(LOGGING))
        (folder / "settings.json").write_text(
            json.dumps(
                {
                    "host": HOST,
                    "http_port": http,
                    "grpc_port": grpc,
                    "metrics_endpoint": None,
                    "parallel_workers": 0,
                    "debug": False,
                    "gzip_enabled": False,
                    "logging_settings": str(folder / "logging.json"),
                }
            )
        )
        (folder / "model-settings.json").write_text(
            json.dumps(
                {
                    "name": model.NAME,
                    "implementation": "digits_runtime.Digits",
                    "max_batch_size": self.max_batch_size,
                    "max_batch_time": self.max_batch_time,
                    "parameters": {"uri": str(folder / "model.pt"), "version": "1"},
                    "inputs": [{"name": model.INPUT, "datatype": "FP32", "shape": [-1, model.WIDTH]}],
                    "outputs": [{"name": model.OUTPUT, "datatype": "FP32", "shape": [-1, model.CLASSES]}],
                }
            )
        )
        command = [str(python), str(python.with_name("mlserver")), "start", str(folder)]
        return Launch(command, url(http), url(grpc), {"PYTHONPATH": str(folder)})


class MLServerPlain(MLServer):
    """The same with its default, no batching, which a model this small may suit better."""

    name = "mlserver-plain"
    title = "MLServer, no batching"
    max_batch_size = 0
    max_batch_time = 0.0
    settings = COMMON


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"level": "WARNING", "handlers": ["console"]},
    "loggers": {name: {"level": "WARNING"} for name in ("mlserver", "uvicorn", "uvicorn.access", "uvicorn.error")},
}
