"""The bytes on the wire."""

import msgpack
import numpy as np
import pytest

from skillweld_client import codec


@pytest.mark.parametrize("dtype", ["?", "u1", "<i2", "<i8", "<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
def test_arrays_come_back_as_they_were(dtype: str, shape: tuple) -> None:
    array = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape) % 7, dtype)
    back = codec.unpackb(codec.packb({"a": array}))["a"]
    assert back.dtype == array.dtype and back.shape == shape
    np.testing.assert_array_equal(back, array)


def test_arrays_that_are_no_block_of_memory_are_sent_in_c_order() -> None:
    turned = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)[::-1, ::-1]
    np.testing.assert_array_equal(codec.unpackb(codec.packb(turned)), turned)


def test_received_arrays_may_be_changed() -> None:
    back = codec.unpackb(codec.packb(np.zeros(2)))
    back += 1
    np.testing.assert_array_equal(back, [1, 1])


def test_inner_keys_are_bytes_and_outer_ones_text() -> None:
    raw = msgpack.unpackb(codec.packb({"state": np.zeros(2, np.float32), "gripper": np.float32(0.5)}))
    assert raw == {
        "state": {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]},
        "gripper": {b"__npgeneric__": True, b"data": 0.5, b"dtype": "<f4"},
    }


def test_scalars_keep_their_type() -> None:
    back = codec.unpackb(codec.packb([np.float32(0.1), np.int16(-3), np.bool_(True), 1.5, None, "x"]))
    assert back == [np.float32(0.1), -3, True, 1.5, None, "x"]
    assert [type(value) for value in back[:3]] == [np.float32, np.int16, np.bool_]


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.array([1j]), np.array(["text"]), np.zeros(1, [("a", "f4")]), {1, 2}, object()]
)
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="cannot send"):
        codec.packb({"a": value})


def test_no_pickled_object_is_ever_read() -> None:
    message = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "|O", b"shape": [1]}
    with pytest.raises(ValueError, match="(?i)object"):
        codec.unpackb(msgpack.packb(message))
