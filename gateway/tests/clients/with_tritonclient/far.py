"""Servers that arms of routes lead to, beside other gateways: fakes that go wrong, and MLServer."""

from __future__ import annotations

import http.server
import json
import os
import socket
import struct
import subprocess
import threading
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

import harness
import wire

MODEL = "identity_fp32"
SHAPE = [-1, 2]


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


class Fake:
    """A server of `identity_fp32`; with `spoilt` set its answers to calls are garbage."""

    address = ""

    def __init__(self) -> None:
        self.spoilt = False
        self.calls = 0

    def stop(self) -> None:
        """Ends it."""
        raise NotImplementedError


class HttpFake(Fake):
    """Over HTTP, with tensors in JSON."""

    def __init__(self) -> None:
        super().__init__()
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                path = f"/v2/models/{MODEL}"
                spec = [{"name": name, "datatype": "FP32", "shape": SHAPE} for name in "xy"]
                told: dict[str, Any] = {
                    "/v2": {"name": "fake", "version": "1", "extensions": []},
                    "/v2/health/ready": {},
                    f"{path}/ready": {},
                    path: {"name": MODEL, "inputs": spec[:1], "outputs": spec[1:]},
                }
                known = self.path in told
                self.answer(200 if known else 404, json.dumps(told.get(self.path, {})).encode())

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.calls += 1
                output = asked["inputs"][0] | {"name": "y"}
                body = {"model_name": MODEL, "model_version": "1", "outputs": [output]}
                self.answer(200, b"\0garbage\xff" if fake.spoilt else json.dumps(body).encode())

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class GrpcFake(Fake):
    """Over gRPC; garbage is a message whose tensors are not what it says of them."""

    def __init__(self) -> None:
        super().__init__()
        fake = self

        class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
            def ServerReady(self, *_: Any) -> Any:
                return pb.ServerReadyResponse(ready=True)

            def ModelReady(self, *_: Any) -> Any:
                return pb.ModelReadyResponse(ready=True)

            def ModelMetadata(self, *_: Any) -> Any:
                told = pb.ModelMetadataResponse(name=MODEL)
                told.inputs.add(name="x", datatype="FP32", shape=SHAPE)
                told.outputs.add(name="y", datatype="FP32", shape=SHAPE)
                return told

            def ModelConfig(self, _: Any, context: Any) -> Any:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "no model configuration")

            def ModelInfer(self, request: Any, _: Any) -> Any:
                fake.calls += 1
                answer = pb.ModelInferResponse(model_name=MODEL, model_version="1")
                answer.outputs.add(name="y", datatype="FP32", shape=request.inputs[0].shape)
                [raw] = request.raw_input_contents
                answer.raw_output_contents.append(struct.pack("<3b", 1, 2, 3) if fake.spoilt else raw)
                return answer

        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def stop(self) -> None:
        self.server.stop(None).wait()


FAKES = {"http": HttpFake, "grpc": GrpcFake}

RUNTIME = '''
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Echo(MLModel):
    async def load(self) -> bool:
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        outputs = [NumpyCodec.encode_output("y", rows)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
'''


def mlserver_program() -> Path | None:
    """MLServer, where there is one."""
    places = [harness.ROOT / ".venv" / "mlserver", harness.ROOT / ".peers" / "mlserver"]
    candidates = [place / "bin" / "mlserver" for place in places]
    if named := os.environ.get("PENSTOCK_MLSERVER"):
        candidates.insert(0, Path(named))
    return next((path for path in candidates if path.is_file()), None)


class MLServer:
    """Seldon's server with a model that answers its input, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "echo_runtime.py").write_text(RUNTIME)
        self.ports = {"http": free_port(), "grpc": free_port()}
        settings = {
            "host": "127.0.0.1",
            "http_port": self.ports["http"],
            "grpc_port": self.ports["grpc"],
            "metrics_endpoint": None,
            "parallel_workers": 0,
            "debug": False,
            "gzip_enabled": False,
        }
        model = {
            "name": MODEL,
            "implementation": "echo_runtime.Echo",
            "parameters": {"version": "7"},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": SHAPE}],
            "outputs": [{"name": "y", "datatype": "FP32", "shape": SHAPE}],
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        program = mlserver_program()
        assert program is not None
        self.log = folder / "log.txt"
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                [program.with_name("python"), program, "start", folder],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONPATH": str(folder)},
            )

    def address(self, protocol: str) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.ports[protocol]}"

    def is_ready(self) -> bool:
        """Whether it answers calls."""
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            answer = wire.request(self.address("http"), "GET", f"/v2/models/{MODEL}/ready")
        except OSError:
            return False
        return answer.status == 200

    def kill(self) -> None:
        """Ends it without a word."""
        self.process.kill()
        self.process.wait()


def kill_all(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ends what is left of them."""
    with ExitStack() as stack:
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.kill)
