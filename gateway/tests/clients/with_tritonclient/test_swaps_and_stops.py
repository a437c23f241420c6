"""Models change and the gateway stops while calls are under way: none is lost, none is wrong."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import wire
from calls import grpc_inputs, http_inputs
from harness import Gateway

X = np.array([[3]], np.float32)


def in_threads(count: int, work: Callable[[int], None]) -> list[threading.Thread]:
    """Starts `count` threads."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_reloading_and_swapping_drops_no_call_and_confuses_none(start_gateway: Any) -> None:
    small: Gateway = start_gateway("", "times")
    done, wrong, answered = threading.Event(), [], [0] * 4

    def call(index: int) -> None:
        module = tritonclient.http if index % 2 else tritonclient.grpc
        make = http_inputs if index % 2 else grpc_inputs
        with module.InferenceServerClient(small.http if index % 2 else small.grpc) as client:
            while not done.is_set():
                try:
                    answer = client.infer("times", make({"x": X}))
                    got = answer.get_response()
                    version = got["model_version"] if index % 2 else got.model_version
                    if answer.as_numpy("y")[0, 0] != 3 * int(version):
                        wrong.append((version, answer.as_numpy("y")))
                except Exception as error:  # noqa: BLE001
                    wrong.append(error)
                answered[index] += 1

    callers = in_threads(4, call)
    manifest = small.repository / "times" / "model.toml"
    text = manifest.read_text()
    with tritonclient.grpc.InferenceServerClient(small.grpc) as control:
        for turn in range(12):
            policy = f'policy = "specific"\nspecific = [{turn % 2 + 1}]'
            manifest.write_text(f"{text}\n[versions]\n{policy}\n")
            control.load_model("times")
    done.set()
    for caller in callers:
        caller.join()
    assert not wrong, wrong[:3]
    assert min(answered) > 12, answered


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_calls_in_flight_are_answered_before_the_gateway_ends(
    start_gateway: Any, number: signal.Signals
) -> None:
    small: Gateway = start_gateway("", "slow")
    slow = {"loops": np.array([[15_000_000]], np.int64)}
    results: list[Any] = [None, None]

    def call(index: int) -> None:
        module = tritonclient.http if index else tritonclient.grpc
        make = http_inputs if index else grpc_inputs
        with module.InferenceServerClient(small.http if index else small.grpc) as client:
            try:
                results[index] = client.infer("slow", make(slow)).as_numpy("done").tolist()
            except Exception as error:  # noqa: BLE001
                results[index] = error

    callers = in_threads(2, call)
    wait_until(lambda: rows_in_progress(small) >= 1)
    small.begin_stop(number)
    for caller in callers:
        caller.join()
    small.stop()
    assert results == [[[15_000_000]]] * 2
    with pytest.raises(ConnectionRefusedError):
        wire.request(small.http, "GET", "/v2/health/live")


def rows_in_progress(gateway: Gateway) -> int:
    """Connections that hold a call, by the gateway's own count of open connections."""
    text = wire.request(gateway.metrics, "GET", "/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith("penstock_connections")]
    counts = [int(float(line.split()[-1])) for line in lines if 'door="metrics"' not in line]
    return int(len(counts) == 2 and min(counts) >= 1)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Waits for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_before_it_stops_the_gateway_says_so_and_still_answers(start_gateway: Any) -> None:
    small: Gateway = start_gateway('[server]\nstop_delay = "1500ms"\n', "times")
    with tritonclient.http.InferenceServerClient(small.http) as client:
        assert client.is_server_ready()
        small.begin_stop()
        wait_until(lambda: not client.is_server_ready(), 1)
        assert client.is_server_live()
        answer = client.infer("times", http_inputs({"x": X}))
        np.testing.assert_array_equal(answer.as_numpy("y"), X * 2)
    small.stop()


def test_idle_connections_do_not_hold_up_the_end(start_gateway: Any) -> None:
    small: Gateway = start_gateway()
    with (
        tritonclient.http.InferenceServerClient(small.http) as http,
        tritonclient.grpc.InferenceServerClient(small.grpc) as over_grpc,
        wire.connect(small.http),
        wire.connect(small.grpc),
    ):
        assert http.is_server_live() and over_grpc.is_server_live()
        begun = time.monotonic()
        small.begin_stop()
        small.stop()
        assert time.monotonic() - begun < 5


def test_a_watcher_of_health_does_not_hold_up_the_end(start_gateway: Any) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    small: Gateway = start_gateway()
    with grpc.insecure_channel(small.grpc) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        begun = time.monotonic()
        small.begin_stop()
        small.stop()
        assert time.monotonic() - begun < 5


def test_an_open_stream_without_calls_does_not_hold_up_the_end(start_gateway: Any) -> None:
    small: Gateway = start_gateway()

    async def run() -> float:
        forever = asyncio.Event()

        async def requests() -> Any:
            await forever.wait()
            yield {}

        async with tritonclient.grpc.aio.InferenceServerClient(small.grpc) as client:
            answers = client.stream_infer(requests())
            await client.is_server_live()
            begun = time.monotonic()
            small.begin_stop()
            await asyncio.to_thread(small.stop)
            ended = time.monotonic() - begun
            answers.cancel()
            return ended

    assert asyncio.run(run()) < 5
