"""Raw sockets with mutated and random bytes on every port: the server may say no or hang up, but
it neither ends nor stops answering others, and takes no more memory than a few requests need."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness import Gateway, metric, wait_until
from hostile import SEEDS, draw_bytes, send, still_serves

CONNECTIONS = 400
MAX_GROWTH = 256 << 20


@pytest.mark.parametrize("door", sorted(SEEDS))
def test_no_bytes_on_a_socket_harm_the_others(
    start_gateway: Callable[..., Gateway], door: str
) -> None:
    gateway = start_gateway()
    still_serves(gateway)
    before = metric(gateway, "process_resident_memory_bytes")
    # The same bytes in every run: what fails once fails again.
    draw = random.Random(door)
    address: str = getattr(gateway, door)
    for index in range(CONNECTIONS):
        send(address, draw_bytes(door, draw))
        if index % 100 == 99:
            still_serves(gateway)
    growth = metric(gateway, "process_resident_memory_bytes") - before
    assert growth < MAX_GROWTH, f"{growth / (1 << 20):.0f} MiB more than before"
    # What was left half sent is closed with its connection.
    wait_until(lambda: metric(gateway, "penstock_connections", protocol=door) <= 1)
