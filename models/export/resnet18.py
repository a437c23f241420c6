"""resnet18: torchvision's ResNet-18 with random weights, for load tests on a model of 47 MB.

The weights mean nothing; the arithmetic is that of the real network.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision

from repository import Port, Signature, Version, write_model

SEED = 0
SIGNATURE = Signature(
    description="ResNet-18 with random weights, for load tests",
    max_batch_size=32,
    inputs=[Port("image", "FP32", [-1, 3, 224, 224])],
    outputs=[Port("logits", "FP32", [-1, 1000], tolerance=1e-4)],
    versions={"policy": "latest", "latest": 1},
    warmup=[1, 8],
)


def export(folder: Path) -> None:
    """Writes the model folder."""
    torch.manual_seed(SEED)
    network = torchvision.models.resnet18(weights=None).eval()
    lineage = {
        "data": "none: random weights",
        "code": f"models/export/resnet18.py, torchvision {torchvision.__version__.partition('+')[0]}, seed {SEED}",
    }
    write_model(folder, SIGNATURE, [Version(1, network, lineage)])
