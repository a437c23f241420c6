"""Every datatype through an identity model and back, bit for bit, by every client and encoding."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import wire
from calls import INVALID, Caller
from harness import DTYPES, Gateway

BFLOAT = ml_dtypes.bfloat16

# Two rows each, with the values that break sloppy code: extremes, and integers beyond 2^53.
VALUES: dict[str, np.ndarray] = {
    "BOOL": np.array([[True, False, True], [False, False, True]]),
    "UINT8": np.array([[0, 1, 255], [7, 128, 2]], np.uint8),
    "UINT16": np.array([[0, 1, 65535], [7, 32768, 2]], np.uint16),
    "UINT32": np.array([[0, 1, 2**32 - 1], [7, 2**31, 2]], np.uint32),
    "UINT64": np.array([[0, 2**53 + 1, 2**64 - 1], [7, 2**63, 2]], np.uint64),
    "INT8": np.array([[0, -128, 127], [7, -1, 2]], np.int8),
    "INT16": np.array([[0, -(2**15), 2**15 - 1], [7, -1, 2]], np.int16),
    "INT32": np.array([[0, -(2**31), 2**31 - 1], [7, -1, 2]], np.int32),
    "INT64": np.array([[0, -(2**63), 2**63 - 1], [7, -(2**53) - 1, 2]], np.int64),
    "FP16": np.array([[0, 65504, -0.1], [6e-8, 1 / 3, -2]], np.float16),
    "BF16": np.array([[0, 3e38, -0.1], [1e-38, 1 / 3, -2]], BFLOAT),
    "FP32": np.array([[0, 3.4e38, -0.1], [1e-45, 1 / 3, -2]], np.float32),
    "FP64": np.array([[0, 1.7e308, -0.1], [5e-324, 1 / 3, -2]], np.float64),
    "BYTES": np.array([[b"", "grüße".encode(), b'"\\\n'], [b"\0", b"x" * 300, b"a"]], np.object_),
}
NOT_NUMBERS = {
    "FP16": np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float16),
    "BF16": np.array([[np.nan, np.inf, -np.inf, -0.0]], BFLOAT),
    "FP32": np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32),
    "FP64": np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float64),
}


def bits(array: np.ndarray) -> list[bytes]:
    """The elements as bytes, so that NaN and -0 count, and text of JSON equals bytes."""
    if array.dtype == np.object_:
        return [e.encode() if isinstance(e, str) else e for e in array.flatten().tolist()]
    return [element.tobytes() for element in array.flatten()]


def assert_same(answered: np.ndarray, sent: np.ndarray) -> None:
    """Same type, shape and bits."""
    assert answered.shape == sent.shape
    assert answered.dtype == sent.dtype
    assert bits(answered) == bits(sent)


def test_every_datatype_is_covered() -> None:
    assert set(VALUES) == set(DTYPES)


@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_values_come_back(caller: Caller, dtype: str) -> None:
    answer = caller.infer(f"identity_{dtype.lower()}", {"x": VALUES[dtype]})
    assert answer.datatype("y") == dtype
    assert_same(answer["y"], VALUES[dtype])


# The client itself refuses BF16 in JSON requests; a bare request below sends it.
MIXES = [
    (dtype, binary_in, binary_out)
    for dtype in DTYPES
    for binary_in in (True, False)
    for binary_out in (True, False)
    if binary_in or dtype != "BF16"
]


@pytest.mark.parametrize(("dtype", "binary_in", "binary_out"), MIXES)
def test_json_and_binary_mix_in_both_directions(
    http_caller: Caller, dtype: str, binary_in: bool, binary_out: bool
) -> None:
    answer = http_caller.infer(
        f"identity_{dtype.lower()}", {"x": VALUES[dtype]},
        outputs=["y"], binary_in=binary_in, binary_out=binary_out,
    )  # fmt: skip
    assert_same(answer["y"], VALUES[dtype])


@pytest.mark.parametrize("dtype", NOT_NUMBERS)
def test_nan_and_infinity_keep_their_bits_in_binary(caller: Caller, dtype: str) -> None:
    """Trap 24."""
    answer = caller.infer(f"identity_{dtype.lower()}", {"x": NOT_NUMBERS[dtype]})
    assert_same(answer["y"], NOT_NUMBERS[dtype])


@pytest.mark.parametrize("dtype", NOT_NUMBERS)
def test_nan_as_json_output_is_refused_with_a_hint(http_caller: Caller, dtype: str) -> None:
    """Trap 24: the answer would be no JSON."""
    inputs, model = {"x": NOT_NUMBERS[dtype]}, f"identity_{dtype.lower()}"
    text = http_caller.refused(INVALID, model, inputs, outputs=["y"], binary_out=False)
    assert "NaN" in text and "binary" in text


def test_bytes_that_are_no_text_come_back_in_binary(caller: Caller) -> None:
    sent = np.array([[b"\xff\xfe\0\x80", b"\xc3"]], np.object_)
    assert_same(caller.infer("identity_bytes", {"x": sent})["y"], sent)


def test_bytes_that_are_no_text_are_refused_as_json_output(http_caller: Caller) -> None:
    """Trap 25: the client could not decode the answer."""
    sent = np.array([[b"\xff\xfe"]], np.object_)
    text = http_caller.refused(
        INVALID, "identity_bytes", {"x": sent}, outputs=["y"], binary_out=False
    )
    assert "UTF-8" in text


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_sized_outputs_keep_their_shape(caller: Caller, dtype: str) -> None:
    """Trap 10."""
    sent = VALUES[dtype][:, :0]
    answer = caller.infer(f"identity_{dtype.lower()}", {"x": sent})
    assert_same(answer["y"], sent)


@pytest.mark.parametrize("dtype", ["FP16", "BF16"])
@pytest.mark.parametrize("nested", [True, False])
def test_half_precision_is_accepted_as_json_numbers(
    gateway: Gateway, dtype: str, nested: bool
) -> None:
    data = [[1.5, -2.0], [0.25, 3.0]] if nested else [1.5, -2.0, 0.25, 3.0]
    body = {"inputs": [wire.tensor(dtype, [2, 2], data)]}
    answer = wire.infer(gateway.http, f"identity_{dtype.lower()}", body)
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == [1.5, -2.0, 0.25, 3.0]


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "BYTES"])
def test_libtorch_gives_every_datatype_back(caller: Caller, dtype: str) -> None:
    answer = caller.infer(f"echo_{dtype.lower()}", {"x": VALUES[dtype]})
    assert_same(answer["y"], VALUES[dtype])
