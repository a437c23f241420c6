"""Training and measuring a classifier, the same way on every run.

One thread, deterministic kernels and a seed make a run repeatable on one kind of CPU; another kind may
round differently, which can move a figure by a row or two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import Digits

BATCH = 64
WEIGHT_DECAY = 1e-4


def make_repeatable(seed: int) -> None:
    """Seeds torch and keeps it from choosing kernels or threads by the moment."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def train(network: nn.Module, digits: Digits, epochs: int, rate: float) -> nn.Module:
    """Trains in place with Adam, and leaves the network in evaluation mode."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    inputs = digits.inputs
    for _ in range(epochs):
        for rows in torch.randperm(len(digits)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[rows]), digits.labels[rows]).backward()
            optimizer.step()
    return network.eval()


def predictions(model: nn.Module, digits: Digits) -> Tensor:
    """The most likely class of each row."""
    with torch.no_grad():
        return model(digits.inputs).argmax(dim=1)


def metrics(model: nn.Module, digits: Digits) -> dict[str, int | float]:
    """Accuracy over all rows, as `model.toml` records it."""
    correct = int((predictions(model, digits) == digits.labels).sum())
    return {"accuracy": round(correct / len(digits), 4), "correct": correct, "total": len(digits)}


def recall_by_class(model: nn.Module, digits: Digits) -> list[float]:
    """The share of each class's rows that are recognised."""
    hit = predictions(model, digits) == digits.labels
    return [hit[digits.labels == label].float().mean().item() for label in range(10)]
