"""A plain PyTorch loop over a TorchScript module on a GPU: what the engine is measured against.

    python torch_loop.py export resnet50.pt
    python torch_loop.py loop resnet50.pt --shape 3,224,224 --dtype FP32 --batches 1,8,32 --json

`loop` does what a script without a server does for each batch: copies it to the GPU, runs forward,
copies the answer back. `--pinned` keeps the inputs in pinned memory and copies without blocking.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch

DTYPES = {"FP32": torch.float32, "FP16": torch.float16, "INT64": torch.int64}
SLICE = 0.2  # seconds; the median over slices is reported


def numbers(text: str) -> list[int]:
    """The numbers of a list divided by commas."""
    return [int(number) for number in text.split(",")]


def export(path: str) -> None:
    """Writes torchvision's ResNet-50 with random weights: the arithmetic is the real network's."""
    import torchvision

    torch.manual_seed(0)
    torch.jit.script(torchvision.models.resnet50(weights=None).eval()).save(path)


def inputs(shapes: list[list[int]], dtypes: list[str], rows: int, pinned: bool) -> list[torch.Tensor]:
    """As many rows of ones for each input, on the CPU."""
    tensors = [
        torch.ones([rows, *shape], dtype=DTYPES[dtype]) for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    return [tensor.pin_memory() for tensor in tensors] if pinned else tensors


def rate(model: torch.jit.ScriptModule, batch: list[torch.Tensor], options: argparse.Namespace) -> float:
    """Items a second, as the median over slices."""
    device = torch.device(options.device)

    def once() -> None:
        answer = model(*[tensor.to(device, non_blocking=options.pinned) for tensor in batch])
        answers = answer if isinstance(answer, (tuple, list)) else [answer]
        for tensor in answers:
            tensor.cpu()  # waits for the forward

    for _ in range(5):
        once()
    rates: list[float] = []
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end or len(rates) < 3:
        start = time.perf_counter()
        count = 0
        while time.perf_counter() - start < SLICE:
            once()
            count += 1
        rates.append(count * len(batch[0]) / (time.perf_counter() - start))
    return statistics.median(rates)


def loop(options: argparse.Namespace) -> None:
    """Measures every batch size and prints the rates."""
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("torch_loop: this PyTorch sees no GPU")
    model = torch.jit.load(options.model, map_location=options.device).eval()
    if options.graph != "plain":
        model = torch.jit.freeze(model)
    if options.graph == "optimized":
        model = torch.jit.optimize_for_inference(model)
    shapes = [numbers(shape) for shape in options.shape]
    with torch.inference_mode():
        rates = {
            rows: rate(model, inputs(shapes, options.dtype, rows, options.pinned), options)
            for rows in numbers(options.batches)
        }
    if options.json:
        name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else "cpu"
        figures = [{"rows": rows, "items_per_s": value} for rows, value in rates.items()]
        print(json.dumps({"model": options.model, "device": name, "torch": torch.__version__, "batches": figures}))
    else:
        for rows, value in rates.items():
            print(f"{rows:>5} rows: {value:.1f} items/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    writes = commands.add_parser("export", help="write ResNet-50 as TorchScript")
    writes.add_argument("path")
    writes.set_defaults(run=lambda options: export(options.path))
    loops = commands.add_parser("loop", help="measure items a second")
    loops.add_argument("model")
    loops.add_argument("--shape", action="append", required=True, help="of one row of an input, without the batch")
    loops.add_argument("--dtype", action="append", required=True, choices=sorted(DTYPES))
    loops.add_argument("--batches", default="1,8,32")
    loops.add_argument("--graph", default="plain", choices=["plain", "frozen", "optimized"])
    loops.add_argument("--device", default="cuda:0")
    loops.add_argument("--seconds", type=float, default=5.0)
    loops.add_argument("--pinned", action="store_true")
    loops.add_argument("--json", action="store_true")
    loops.set_defaults(run=loop)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
