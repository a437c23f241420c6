"""Writes the larger example models, resnet18 and minilm, as a model repository of their own.

    python extra.py FOLDER
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import minilm
import resnet18


def main(folder: Path) -> None:
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for module in (resnet18, minilm):
        target = folder / module.__name__
        module.export(target)
        size = (target / "1" / "model.pt").stat().st_size
        print(f"{module.__name__}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
