"""The model in LitServe, at the routes of the Open Inference Protocol.

python app.py MODEL_FILE PORT
"""

import sys

import litserve
import numpy
import torch

MAX_BATCH = 64
METADATA = {
    "name": "digits",
    "versions": ["1"],
    "platform": "pytorch",
    "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
}


class Digits(litserve.LitAPI):
    """What LitServe calls for each request and for each batch.

    It reads meaning into annotations of these methods, so `decode_request` and `encode_response` have none.
    """

    def __init__(self, path: str) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=0.0, api_path="/v2/models/digits/infer")
        self.path = path

    def setup(self, device: str) -> None:
        """Loads the model in the worker."""
        torch.set_num_threads(1)
        self.module = torch.jit.freeze(torch.jit.load(self.path, device).eval())

    def decode_request(self, request):
        """The rows of a request."""
        (tensor,) = request["inputs"]
        return numpy.asarray(tensor["data"], numpy.float32).reshape(tensor["shape"])

    def batch(self, inputs: list) -> tuple:
        """All rows together, and where each request's end."""
        return numpy.concatenate(inputs), numpy.cumsum([len(rows) for rows in inputs])

    def predict(self, batch: tuple) -> tuple:
        """Runs a batch."""
        rows, ends = batch
        with torch.inference_mode():
            return self.module(torch.from_numpy(rows)).numpy(), ends

    def unbatch(self, output: tuple) -> list:
        """The rows of each request."""
        rows, ends = output
        return numpy.split(rows, ends[:-1])

    def encode_response(self, output):
        """The body of an answer."""
        tensor = {"name": "logits", "datatype": "FP32", "shape": list(output.shape), "data": output.ravel().tolist()}
        return {"model_name": "digits", "model_version": "1", "outputs": [tensor]}


def main(path: str, port: int) -> None:
    """Serves until it is stopped."""
    server = litserve.LitServer(Digits(path), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.app.get("/v2/models/digits")(lambda: METADATA)
    server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
