"""How calls share batches: large ones, bad ones, delays, and what shows of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

import wire
from busy import ONE_THREAD, busy, in_threads, wait_for_queue
from calls import FAILED, INVALID, Caller, GrpcCaller, HttpCaller
from harness import Gateway, metric, write_identity

RANDOM = np.random.default_rng(11)


def prepare(repository: Path) -> None:
    """Models with settings of their own."""
    for name, more in {
        "whole": "[batching]\nsplit = false\n",
        "patient": '[batching]\nmax_delay = "20ms"\npriority = 3\n',
        "very_patient": '[batching]\nmax_delay = "60s"\n',
    }.items():
        write_identity(repository, "FP32", max_batch_size=4, name=name, more=more)
    mlp = repository / "mlp" / "model.toml"
    mlp.write_text(mlp.read_text().replace('graph = "auto"', "deterministic = true"))


@pytest.fixture(scope="module")
def single(start_gateway: Any) -> Gateway:
    """A gateway with one engine thread."""
    return start_gateway(ONE_THREAD, "slow", "throws", "breaks", "mlp", prepare=prepare)


@pytest.fixture(params=["http", "grpc"])
def single_caller(request: pytest.FixtureRequest, single: Gateway) -> Iterator[Caller]:
    """Both blocking clients in turn, connected to it."""
    made = HttpCaller(single.http) if request.param == "http" else GrpcCaller(single.grpc)
    yield made
    made.close()


def closed(gateway: Gateway, model: str, why: str) -> float:
    """Batches of a model that were closed for this reason."""
    return metric(gateway, "penstock_batches_total", model=model, closed=why)


# Calls larger than a batch


@pytest.mark.parametrize("rows", [9, 25, 64])
@pytest.mark.parametrize("binary", [True, False])
def test_a_call_above_the_maximum_comes_back_whole(caller: Caller, rows: int, binary: bool) -> None:
    """Trap 28: the batches that it runs in have at most 8 items."""
    a = RANDOM.standard_normal((rows, 4), dtype=np.float32)
    b = RANDOM.standard_normal((rows, 4), dtype=np.float32)
    answer = caller.infer(
        "add_sub", {"a": a, "b": b}, outputs=["difference", "sum"], binary_in=binary,
        binary_out=binary,
    )  # fmt: skip
    assert answer["sum"].shape == (rows, 4)
    np.testing.assert_array_equal(answer["sum"], a + b)
    np.testing.assert_array_equal(answer["difference"], a - b)


def test_a_call_above_the_maximum_equals_calls_row_by_row(caller: Caller) -> None:
    ids = RANDOM.integers(0, 16, (25, 3))
    together = caller.infer("lookup", {"ids": ids})["vectors"]
    alone = [caller.infer("lookup", {"ids": row[None]})["vectors"] for row in ids]
    np.testing.assert_array_equal(together, np.concatenate(alone))
    texts = np.array([[b"x" * (row % 5), str(row).encode()] for row in range(25)], np.object_)
    assert caller.infer("identity_bytes", {"x": texts})["y"].tolist() == texts.tolist()


def test_a_large_call_of_a_real_model_equals_its_small_calls(caller: Caller) -> None:
    pixels = RANDOM.random((3 * 64 + 1, 64), dtype=np.float32)
    together = caller.infer("digits", {"pixels": pixels})["logits"]
    alone = [caller.infer("digits", {"pixels": part})["logits"] for part in np.split(pixels, 193)]
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-4)


def test_a_large_call_is_one_call_of_many_batches(caller: Caller, gateway: Gateway) -> None:
    def counts() -> list[float]:
        names = ["request_success", "count", "exec_count"]
        return [metric(gateway, f"nv_inference_{name}", model="dict_out") for name in names]

    before = counts()
    x = np.ones((25, 3), np.float32)
    np.testing.assert_array_equal(caller.infer("dict_out", {"x": x})["double"], x * 2)
    # 8 + 8 + 8 + 1
    assert [now - then for now, then in zip(counts(), before)] == [1, 25, 4]


def test_a_bad_row_anywhere_in_a_large_call_refuses_it_as_a_whole(caller: Caller) -> None:
    x = np.ones((25, 2), np.float32)
    for row in (0, 12, 24):
        bad = x.copy()
        bad[row] = -1
        caller.refused(INVALID, "throws", {"x": bad})
    np.testing.assert_array_equal(caller.infer("throws", {"x": x})["y"], x * 2)


def test_a_model_may_refuse_what_is_larger_than_a_batch(single_caller: Caller) -> None:
    text = single_caller.refused(INVALID, "whole", {"x": np.ones((5, 2), np.float32)})
    assert "batch size 5" in text and "at most 4" in text
    x = np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(single_caller.infer("whole", {"x": x})["y"], x)


# Calls that fail


def test_a_bad_row_fails_its_own_caller_and_its_neighbours_are_answered(
    single: Gateway, single_caller: Caller
) -> None:
    reruns = metric(single, "penstock_batch_reruns_total", model="throws")
    rows = [np.array([[-1 if call == 5 else call, 1]], np.float32) for call in range(8)]

    def call(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kind = HttpCaller if single_caller.protocol == "http" else GrpcCaller
        own = kind(single.http if single_caller.protocol == "http" else single.grpc)
        try:
            return row, own.infer("throws", {"x": row})["y"]
        finally:
            own.close()

    with busy(single) as is_busy:
        threads, ended = in_threads([lambda row=row: call(row) for row in rows])
        wait_for_queue(single, "throws", 8, is_busy)
    for thread in threads:
        thread.join()
    [failed] = [one for one in ended if isinstance(one, Exception)]
    assert isinstance(failed, InferenceServerException), failed
    assert str(failed.status()) == INVALID[single_caller.protocol == "grpc"], failed
    assert failed.message().startswith("model throws/1: ")
    answered = [one for one in ended if not isinstance(one, Exception)]
    assert len(answered) == 7
    for row, answer in answered:
        np.testing.assert_array_equal(answer, row * 2)
    # All eight were one batch: in halves it takes three steps to the culprit.
    assert metric(single, "penstock_batch_reruns_total", model="throws") == reruns + 3


def test_a_model_that_fails_on_its_own_inputs_too_is_an_error_of_the_server(
    start_gateway: Any,
) -> None:
    broken = start_gateway("", "breaks")
    good, bad = np.ones((1, 2), np.float32), -np.ones((1, 2), np.float32)
    for caller in (HttpCaller(broken.http), GrpcCaller(broken.grpc)):
        if caller.protocol == "http":
            np.testing.assert_array_equal(caller.infer("breaks", {"x": good})["y"], good * 2)
            caller.refused(FAILED, "breaks", {"x": bad})
        # From then on nobody gets an answer, whatever he sends.
        text = caller.refused(FAILED, "breaks", {"x": good})
        assert text.startswith("model breaks/1: ")
        caller.close()
    failures = metric(broken, "penstock_requests_total", model="breaks", outcome="engine_failed")
    assert failures == 3


# What closes a batch


def test_a_full_batch_and_a_lone_call_close_for_different_reasons(single: Gateway) -> None:
    row = {"inputs": [wire.tensor("FP32", [1, 2], [1.0, 2.0])]}
    full, idle = closed(single, "throws", "full"), closed(single, "throws", "idle")
    assert wire.infer(single.http, "throws", row).status == 200
    assert closed(single, "throws", "idle") == idle + 1
    with busy(single) as is_busy:
        threads, ended = in_threads([lambda: wire.infer(single.http, "throws", row)] * 8)
        wait_for_queue(single, "throws", 8, is_busy)
    for thread in threads:
        thread.join()
    assert [answer.status for answer in ended] == [200] * 8
    assert closed(single, "throws", "full") == full + 1
    assert metric(single, "penstock_batches_running") == 0


def test_a_delay_closes_the_batch_of_a_lone_call(single: Gateway, single_caller: Caller) -> None:
    before = closed(single, "patient", "delay")
    x = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(single_caller.infer("patient", {"x": x})["y"], x)
    assert closed(single, "patient", "delay") == before + 1


def test_a_delay_holds_for_every_lone_call(single: Gateway, single_caller: Caller) -> None:
    before = closed(single, "patient", "delay")
    x = np.ones((1, 2), np.float32)
    for _ in range(6):
        np.testing.assert_array_equal(single_caller.infer("patient", {"x": x})["y"], x)
    assert closed(single, "patient", "delay") == before + 6


def test_a_batch_leaves_before_the_deadline_of_its_calls(
    single: Gateway, single_caller: Caller
) -> None:
    """The delay of this model is far longer, and the engine has nothing else to do."""
    x = np.ones((1, 3), np.float32)
    answer = single_caller.infer("very_patient", {"x": x}, timeout=500_000)
    np.testing.assert_array_equal(answer["y"], x)
    assert closed(single, "very_patient", "deadline") > 0


def test_a_full_batch_does_not_wait_for_its_delay(single: Gateway, single_caller: Caller) -> None:
    """The delay of this model is longer than any client here waits."""
    before = closed(single, "very_patient", "full")
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(single_caller.infer("very_patient", {"x": x})["y"], x)
    assert closed(single, "very_patient", "full") == before + 1


def test_calls_of_another_shape_do_not_close_a_batch(single: Gateway) -> None:
    """Between calls of one shape come calls of another; each shape still runs as one batch."""

    def request(columns: int) -> dict[str, Any]:
        return {"inputs": [wire.tensor("FP32", [1, columns], [1.0] * columns)]}

    before = metric(single, "nv_inference_exec_count", model="identity_fp32")
    with busy(single) as is_busy:
        threads, ended = in_threads(
            [
                lambda columns=columns: wire.infer(single.http, "identity_fp32", request(columns))
                for columns in (2, 3) * 4
            ]
        )
        wait_for_queue(single, "identity_fp32", 8, is_busy)
    for thread in threads:
        thread.join()
    assert [answer.status for answer in ended] == [200] * 8
    assert metric(single, "nv_inference_exec_count", model="identity_fp32") == before + 2


def test_a_deterministic_model_shares_no_batches(single: Gateway) -> None:
    before = metric(single, "nv_inference_exec_count", model="mlp")
    body = {"inputs": [wire.tensor("FP32", [1, 64], [0.5] * 64, "pixels")]}
    with busy(single) as is_busy:
        threads, ended = in_threads([lambda: wire.infer(single.http, "mlp", body)] * 4)
        wait_for_queue(single, "mlp", 4, is_busy)
    for thread in threads:
        thread.join()
    outputs = [answer.json()["outputs"] for answer in ended]
    assert outputs == [outputs[0]] * 4
    assert metric(single, "nv_inference_exec_count", model="mlp") == before + 4


def test_the_configuration_tells_delay_and_priorities(single: Gateway) -> None:
    with tritonclient.http.InferenceServerClient(single.http) as client:
        found = client.get_model_config("patient")["dynamic_batching"]
    assert found["max_queue_delay_microseconds"] == 20_000
    assert found["priority_levels"] == 9
    assert found["default_priority_level"] == 3
    with tritonclient.grpc.InferenceServerClient(single.grpc) as client:
        config = client.get_model_config("throws").config.dynamic_batching
    assert config.max_queue_delay_microseconds == 0
    assert (config.priority_levels, config.default_priority_level) == (9, 5)
