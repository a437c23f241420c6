"""Models change and the gateway stops while calls are under way: none is lost, none is wrong."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from grpc_health.v1 import health_pb2, health_pb2_grpc

import wire
from calls import grpc_inputs, http_inputs
from harness import Gateway, running, wait_until, waiting

X = np.array([[3]], np.float32)
# Long enough to tell waiting from not waiting.
DRAIN = '[server]\ndrain = "8s"\n'


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
                except Exception as error:
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
    small: Gateway = start_gateway("[engine]\ncpu_threads = 1\n", "slow")
    slow = {"loops": np.array([[20_000_000]], np.int64)}
    results: list[Any] = []

    def call(index: int) -> None:
        module = tritonclient.http if index % 2 else tritonclient.grpc
        make = http_inputs if index % 2 else grpc_inputs
        with module.InferenceServerClient(small.http if index % 2 else small.grpc) as client:
            try:
                results.append(client.infer("slow", make(slow)).as_numpy("done").tolist())
            except Exception as error:
                results.append(error)

    # The first runs, so the others wait.
    callers = in_threads(1, call)
    wait_until(lambda: running(small, "slow") == 1)
    callers += in_threads(3, call)
    wait_until(lambda: waiting(small, "slow") == 3)
    small.begin_stop(number)
    for caller in callers:
        caller.join()
    small.stop()
    assert results == [[[20_000_000]]] * 4
    with pytest.raises(ConnectionRefusedError):
        wire.request(small.http, "GET", "/v2/health/live")


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


def test_a_stop_as_soon_as_the_gateway_says_that_it_is_ready_is_a_clean_one(
    start_gateway: Any,
) -> None:
    for _ in range(10):
        small: Gateway = start_gateway()
        small.begin_stop()
        small.stop()


def seconds_to_end(gateway: Gateway) -> float:
    """How long a stop takes."""
    begun = time.monotonic()
    gateway.begin_stop()
    gateway.stop()
    return time.monotonic() - begun


def test_idle_clients_do_not_hold_up_the_end(start_gateway: Any) -> None:
    small: Gateway = start_gateway(DRAIN)
    with (
        tritonclient.http.InferenceServerClient(small.http) as http,
        tritonclient.grpc.InferenceServerClient(small.grpc) as over_grpc,
        wire.connect(small.http),
    ):
        assert http.is_server_live() and over_grpc.is_server_live()
        assert seconds_to_end(small) < 4


def test_a_connection_that_never_spoke_does_not_hold_up_the_end(start_gateway: Any) -> None:
    small: Gateway = start_gateway(DRAIN)
    with wire.connect(small.grpc):
        assert wire.request(small.http, "GET", "/v2/health/live").status == 200
        assert seconds_to_end(small) < 4


def test_a_watcher_of_health_does_not_hold_up_the_end(start_gateway: Any) -> None:
    """gRPC's own client-side health checks watch for as long as the channel lives."""
    small: Gateway = start_gateway(DRAIN)
    with grpc.insecure_channel(small.grpc) as channel:
        watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        assert seconds_to_end(small) < 4


def test_an_open_stream_without_calls_does_not_hold_up_the_end(start_gateway: Any) -> None:
    small: Gateway = start_gateway(DRAIN, "times")
    with tritonclient.grpc.InferenceServerClient(small.grpc) as client:
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("times", grpc_inputs({"x": X}))
        answers.get(timeout=30)
        assert seconds_to_end(small) < 4
