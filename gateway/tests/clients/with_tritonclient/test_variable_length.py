"""Calls of different lengths in one batch: padded together, cut apart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio
import tritonclient.http.aio

import wire
from busy import ONE_THREAD, busy, in_threads, wait_for_queue
from calls import grpc_inputs, http_inputs
from harness import Gateway, add_to_manifest, metric, write_identity

BUCKETS = "[batching]\nvariable = { buckets = [4, 8, 16], pad = 7, max_waste = 4.0 }\n"
MASKED = '[batching]\nvariable = { buckets = [4, 8, 16], pad = 9, mask = "mask" }\n'
THRIFTY = "[batching]\nvariable = { buckets = [4, 16], max_waste = 1.0 }\n"


def prepare(repository: Path) -> None:
    """Models whose calls may have any length."""
    write_identity(repository, "INT64", max_batch_size=16, name="tokens", more=BUCKETS)
    # Nobody else calls this one: once its costs are learnt, padding depends on them.
    write_identity(repository, "INT64", max_batch_size=16, name="unlearnt", more=BUCKETS)
    write_identity(repository, "INT64", max_batch_size=16, name="thrifty", more=THRIFTY)
    add_to_manifest(repository / "masked_sum", MASKED)
    add_to_manifest(repository / "average", "[batching]\nvariable = { buckets = [4, 8] }")


@pytest.fixture(scope="module")
def single(start_gateway: Any) -> Gateway:
    """A gateway with one engine thread; `average` is refused at load, and the others serve."""
    return start_gateway(
        ONE_THREAD, "slow", "masked_sum", "average", identities=False, prepare=prepare
    )


def tokens(call: int) -> np.ndarray:
    """Tokens that only this call has: 1 to 3 rows of 1 to 20, longer than the last bucket too."""
    rows, length = call % 3 + 1, call % 20 + 1
    return np.arange(rows * length, dtype=np.int64).reshape(rows, length) + 1000 * call


def cells(gateway: Gateway, model: str, kind: str) -> float:
    """Positions of the batches of a model."""
    return metric(gateway, "penstock_batch_cells_total", model=model, kind=kind)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_every_caller_gets_its_own_tokens_at_its_own_length(single: Gateway, protocol: str) -> None:
    module = getattr(tritonclient, protocol).aio
    make = http_inputs if protocol == "http" else grpc_inputs

    async def run() -> None:
        async with module.InferenceServerClient(getattr(single, protocol)) as client:
            calls = [client.infer("tokens", make({"x": tokens(call)})) for call in range(200)]
            for call, result in enumerate(await asyncio.gather(*calls)):
                np.testing.assert_array_equal(result.as_numpy("y"), tokens(call))

    asyncio.run(run())


def send(gateway: Gateway, model: str, inputs: dict[str, np.ndarray]) -> wire.Response:
    """A call over HTTP in JSON."""
    datatypes = {"int64": "INT64", "float32": "FP32", "bool": "BOOL"}
    tensors = [
        wire.tensor(datatypes[array.dtype.name], list(array.shape), array.tolist(), name)
        for name, array in inputs.items()
    ]
    return wire.infer(gateway.http, model, {"inputs": tensors})


def test_waiting_calls_of_different_lengths_share_a_batch(single: Gateway) -> None:
    lengths = [2, 5, 8, 3]
    runs = metric(single, "nv_inference_exec_count", model="unlearnt")
    before = [cells(single, "unlearnt", kind) for kind in ("sent", "padding")]
    inputs = [np.full((1, length), length, np.int64) for length in lengths]
    with busy(single) as is_busy:
        threads, ended = in_threads(
            [lambda x=x: (x, send(single, "unlearnt", {"x": x})) for x in inputs]
        )
        wait_for_queue(single, "unlearnt", 4, is_busy)
    for thread in threads:
        thread.join()
    for x, answer in ended:
        [output] = answer.json()["outputs"]
        assert (output["shape"], output["data"]) == (list(x.shape), x.flatten().tolist())
    assert metric(single, "nv_inference_exec_count", model="unlearnt") == runs + 1
    after = [cells(single, "unlearnt", kind) for kind in ("sent", "padding")]
    # Four rows of eight.
    assert [a - b for a, b in zip(after, before)] == [18, 14]


def test_what_is_padded_is_masked(single: Gateway) -> None:
    """The model sums where its mask is true; the padding would count nine for each position."""
    runs = metric(single, "nv_inference_exec_count", model="masked_sum")
    inputs = [
        {"values": np.ones((1, length), np.float32), "mask": np.ones((1, length), bool)}
        for length in (6, 8, 7, 5)
    ]
    with busy(single) as is_busy:
        threads, ended = in_threads(
            [lambda one=one: (one, send(single, "masked_sum", one)) for one in inputs]
        )
        wait_for_queue(single, "masked_sum", 4, is_busy)
    for thread in threads:
        thread.join()
    for one, answer in ended:
        assert answer.json()["outputs"][0]["data"] == [one["values"].shape[1]]
    assert metric(single, "nv_inference_exec_count", model="masked_sum") == runs + 1


def test_more_padding_than_the_model_allows_closes_the_batch(single: Gateway) -> None:
    name = "penstock_batches_total"
    before = metric(single, name, model="thrifty", closed="bucket")
    inputs = [np.ones((1, length), np.int64) for length in (16, 1)]
    with busy(single) as is_busy:
        threads, ended = in_threads([lambda x=x: send(single, "thrifty", {"x": x}) for x in inputs])
        wait_for_queue(single, "thrifty", 2, is_busy)
    for thread in threads:
        thread.join()
    assert [answer.status for answer in ended] == [200, 200]
    assert metric(single, name, model="thrifty", closed="bucket") == before + 1
    assert cells(single, "thrifty", "padding") == 0


def test_a_model_whose_answers_change_with_padding_is_not_served(single: Gateway) -> None:
    index = wire.request(single.http, "POST", "/v2/repository/index").json()
    [line] = [line for line in index if line["name"] == "average"]
    assert line["state"] == "UNAVAILABLE"
    reason = line["reason"]
    assert "batching.variable: padding from 2 to 4 changes output 'mean'" in reason
    assert "'mask'" in reason
    # Without sharing batches it is as good as any.
    manifest = single.repository / "average" / "model.toml"
    text = manifest.read_text()
    manifest.write_text(text[: text.index("[batching]")])
    load = wire.request(single.http, "POST", "/v2/repository/models/average/load", b"")
    assert load.status == 200, load
    assert send(single, "average", {"x": np.ones((1, 3), np.float32)}).json()["outputs"][0][
        "data"
    ] == [1.0]
