"""The networks behind the digits models: a perceptron and a small convolutional network.

Both take pixels FP32 [N, 64] and give logits FP32 [N, 10].
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 8
CLASSES = 10


class Perceptron(nn.Module):
    """Fully connected layers of the given widths with ReLU between them."""

    def __init__(self, hidden: list[int]) -> None:
        super().__init__()
        widths = [SIDE * SIDE, *hidden, CLASSES]
        layers: list[nn.Module] = []
        for index, (wide, narrow) in enumerate(zip(widths, widths[1:])):
            if index > 0:
                layers.append(nn.ReLU())
            layers.append(nn.Linear(wide, narrow))
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels)


class Convolutional(nn.Module):
    """Two convolutions with batch normalisation, one pooling, one linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.first_norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(2 * channels)
        self.head = nn.Linear(2 * channels * (SIDE // 2) ** 2, CLASSES)

    def forward(self, pixels: Tensor) -> Tensor:
        image = pixels.view(-1, 1, 8, 8)
        image = F.relu(self.first_norm(self.first(image)))
        image = F.max_pool2d(F.relu(self.second_norm(self.second(image))), 2)
        return self.head(image.flatten(1))
