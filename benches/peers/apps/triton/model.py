"""The model in Triton's Python backend: what Triton hands over together runs as one batch."""

from pathlib import Path

import numpy
import torch
import triton_python_backend_utils as triton


class TritonPythonModel:
    """Named by Triton's interface, like its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the TorchScript file beside this one."""
        torch.set_num_threads(1)
        path = Path(args["model_repository"], args["model_version"], "model.pt")
        self.module = torch.jit.freeze(torch.jit.load(str(path), "cpu").eval())

    def execute(self, requests: list) -> list:
        """Answers every request."""
        inputs = [triton.get_input_tensor_by_name(request, "pixels").as_numpy() for request in requests]
        with torch.inference_mode():
            outputs = self.module(torch.from_numpy(numpy.concatenate(inputs))).numpy()
        ends = numpy.cumsum([len(rows) for rows in inputs])
        answers = numpy.split(outputs, ends[:-1])
        return [triton.InferenceResponse([triton.Tensor("logits", answer)]) for answer in answers]
