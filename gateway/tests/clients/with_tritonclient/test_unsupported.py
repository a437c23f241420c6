"""What is not implemented says so, with the status for it, and is not advertised."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

from calls import UNSUPPORTED, refusal

CALLS: dict[str, Callable[[Any], Any]] = {
    "system status": lambda c: c.get_system_shared_memory_status(),
    "system status of a region": lambda c: c.get_system_shared_memory_status("r"),
    "system register": lambda c: c.register_system_shared_memory("r", "/r", 64),
    "system unregister": lambda c: c.unregister_system_shared_memory("r"),
    "system unregister all": lambda c: c.unregister_system_shared_memory(),
    "cuda status": lambda c: c.get_cuda_shared_memory_status(),
    "cuda register": lambda c: c.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64),
    "cuda unregister": lambda c: c.unregister_cuda_shared_memory("r"),
    "cuda unregister all": lambda c: c.unregister_cuda_shared_memory(),
    "trace settings": lambda c: c.get_trace_settings(),
    "trace settings of a model": lambda c: c.get_trace_settings("digits"),
    "update trace settings": lambda c: c.update_trace_settings(settings={"trace_rate": "1"}),
}


@pytest.mark.parametrize("name", CALLS)
def test_shared_memory_and_tracing_are_unsupported(client: Any, name: str) -> None:
    status, _ = refusal(lambda: CALLS[name](client))
    assert status == UNSUPPORTED[client.protocol == "grpc"]


def test_they_are_not_advertised(http_client: Any) -> None:
    extensions = " ".join(http_client.get_server_metadata()["extensions"])
    for absent in ("shared_memory", "trace", "sequence"):
        assert absent not in extensions


def test_tensors_in_shared_memory_are_unsupported(client: Any) -> None:
    module = getattr(tritonclient, client.protocol)
    tensor = module.InferInput("x", [1, 2], "FP32")
    tensor.set_shared_memory("region", 8)
    status, text = refusal(lambda: client.infer("identity_fp32", [tensor]))
    assert status in UNSUPPORTED and "shared memory" in text

    tensor = module.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    output = module.InferRequestedOutput("y")
    output.set_shared_memory("region", 8)
    status, text = refusal(lambda: client.infer("identity_fp32", [tensor], outputs=[output]))
    assert status in UNSUPPORTED and "shared memory" in text
