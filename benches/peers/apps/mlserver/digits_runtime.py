"""The model as an MLServer runtime; MLServer joins requests to batches before they get here."""

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Digits(MLModel):
    """Runs a TorchScript file on one thread."""

    async def load(self) -> bool:
        """Loads the file that the settings name."""
        torch.set_num_threads(1)
        self.module = torch.jit.freeze(torch.jit.load(self.settings.parameters.uri, "cpu").eval())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers a batch."""
        rows = NumpyCodec.decode_input(payload.inputs[0])
        with torch.inference_mode():
            outputs = self.module(torch.from_numpy(rows)).numpy()
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("logits", outputs)],
        )
