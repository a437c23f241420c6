"""The model in TorchServe: bodies are inference requests of the Open Inference Protocol in JSON.

A request without a body asks for the model's metadata.
"""

import json
from pathlib import Path
from typing import Any

import numpy
import torch

METADATA = {
    "name": "digits",
    "versions": ["1"],
    "platform": "pytorch",
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
}


class Handler:
    """Named in no manifest: TorchServe takes the only class of the file."""

    def initialize(self, context: Any) -> None:
        """Loads the archive's model."""
        torch.set_num_threads(1)
        properties = context.system_properties
        path = Path(properties["model_dir"], context.manifest["model"]["serializedFile"])
        self.module = torch.jit.freeze(torch.jit.load(str(path), "cpu").eval())

    def handle(self, requests: list[dict], context: Any) -> list[bytes]:
        """Answers what TorchServe has put together."""
        bodies = [request.get("body") for request in requests]
        decoded = [json.loads(body) if isinstance(body, (bytes, bytearray)) and body else body for body in bodies]
        asked = [index for index, body in enumerate(decoded) if body]
        answers = [METADATA] * len(decoded)
        if asked:
            inputs = [decoded[index]["inputs"][0] for index in asked]
            rows = [numpy.asarray(each["data"], numpy.float32).reshape(each["shape"]) for each in inputs]
            with torch.inference_mode():
                outputs = self.module(torch.from_numpy(numpy.concatenate(rows))).numpy()
            ends = numpy.cumsum([len(each) for each in rows])
            for index, answer in zip(asked, numpy.split(outputs, ends[:-1]), strict=True):
                answers[index] = encode(answer)
        return [json.dumps(answer).encode() for answer in answers]


def encode(rows: numpy.ndarray) -> dict:
    """The body of an answer."""
    output = {"name": "logits", "datatype": "FP32", "shape": list(rows.shape), "data": rows.ravel().tolist()}
    return {"model_name": "digits", "model_version": "1", "outputs": [output]}
