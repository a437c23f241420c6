"""Writes a model folder as Penstock reads it: model.toml, <version>/model.pt, <version>/golden.json.

Nothing in these files is typed by hand: checksums, figures and golden answers are those of the very
`model.pt` that was written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

DATATYPES = {torch.float32: "FP32", torch.int64: "INT64"}


@dataclass(frozen=True)
class Port:
    """An input or an output: its name, its Open Inference Protocol datatype, its shape on the wire."""

    name: str
    dtype: str
    shape: list[int]
    labels: list[str] | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class Signature:
    """The part of a model that all its versions share."""

    description: str
    max_batch_size: int
    inputs: list[Port]
    outputs: list[Port]
    versions: dict[str, Any]
    warmup: list[int]
    batching: dict[str, Any] | None = None


@dataclass(frozen=True)
class Version:
    """One trained network, with what is known about how it came to be."""

    number: int
    network: nn.Module
    lineage: dict[str, Any]
    golden: list[list[Tensor]] = field(default_factory=list)  # the inputs of each request
    golden_tolerance: float = 1e-4


def write_model(folder: Path, signature: Signature, versions: list[Version]) -> None:
    """Writes one model with all its versions; what lay in `folder` goes."""
    shutil.rmtree(folder, ignore_errors=True)
    tables = [_head(signature)]
    for version in versions:
        target = folder / str(version.number)
        target.mkdir(parents=True)
        save_script(version.network, target / "model.pt")
        if version.golden:
            (target / "golden.json").write_text(_golden(target / "model.pt", signature, version))
        tables.append(_version(version, target / "model.pt"))
    (folder / "model.toml").write_text("\n".join(tables))


def save_script(network: nn.Module, path: Path) -> None:
    """Saves as TorchScript, without the debug records: those carry the source paths of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "model.pt")  # the archive inside is named like the file
        torch.jit.script(network.eval()).save(str(whole))
        reader = torch._C.PyTorchFileReader(str(whole))
        writer = torch._C.PyTorchFileWriter(str(path))
        for name in reader.get_all_records():
            # The writer adds its own version and id.
            if name != "version" and not name.startswith(".data/") and not name.endswith(".debug_pkl"):
                record = reader.get_record(name)
                writer.write_record(name, record, len(record))
        writer.write_end_of_file()


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def toml(value: Any) -> str:
    """A value as TOML writes it; dictionaries inline."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        # Python leaves out the fraction that TOML wants to see: 1e-5, not 1e-05.
        return repr(value).replace("e-0", "e-")
    return json.dumps(value, ensure_ascii=False)


def _table(header: str, entries: dict[str, Any]) -> str:
    lines = [f"{key} = {toml(value)}" for key, value in entries.items() if value is not None]
    return "\n".join([header, *lines]) + "\n"


def _head(signature: Signature) -> str:
    top = {
        "platform": "torchscript",
        "max_batch_size": signature.max_batch_size,
        "description": signature.description,
    }
    tables = [_table("# Written by models/export; change it there.", top)]
    for header, ports in (("[[input]]", signature.inputs), ("[[output]]", signature.outputs)):
        tables += [_table(header, vars(port)) for port in ports]
    if signature.batching:
        tables.append(_table("[batching]", signature.batching))
    tables.append(_table("[versions]", signature.versions))
    tables.append(_table("[engine]", {"device": "cpu", "graph": "auto"}))
    tables.append(_table("[warmup]", {"batch_sizes": signature.warmup}))
    return "\n".join(tables)


def _version(version: Version, model: Path) -> str:
    pin = _table(f"[version.{version.number}]", {"sha256": sha256(model)})
    return pin + "\n" + _table(f"[version.{version.number}.lineage]", version.lineage)


def _tensor(name: str, tensor: Tensor) -> dict[str, Any]:
    return {
        "name": name,
        "datatype": DATATYPES[tensor.dtype],
        "shape": list(tensor.shape),
        "data": tensor.flatten().tolist(),
    }


def _golden(path: Path, signature: Signature, version: Version) -> str:
    """Requests with the answers that PyTorch gives, from the file as it was saved."""
    model = torch.jit.load(str(path))
    requests = []
    for inputs in version.golden:
        with torch.no_grad():
            answer = model(*inputs)
        requests.append(
            {
                "inputs": [_tensor(port.name, value) for port, value in zip(signature.inputs, inputs, strict=True)],
                "outputs": [_tensor(signature.outputs[0].name, answer)],
                "tolerance": version.golden_tolerance,
            }
        )
    # One line a request keeps a diff readable.
    lines = ",\n".join(json.dumps(request, separators=(",", ":")) for request in requests)
    return '{"requests":[\n' + lines + "\n]}\n"
