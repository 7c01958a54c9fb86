"""msgpack with NumPy arrays, as openpi's servers read and write it.

An array is a map with the *bytes* keys ``__ndarray__`` (true), ``data`` (C order), ``dtype`` (``"<f4"``) and ``shape``; a NumPy
scalar is one with ``__npgeneric__``. Servers look for bytes: the same keys as text would stay a map.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

#: Kinds of dtype that are plain numbers: boolean, signed, unsigned, floating.
_PLAIN_KINDS = "biuf"


def packb(value: Any) -> bytes:
    """Encodes dicts, lists, text, numbers and arrays; raises ``TypeError`` for anything else."""
    return msgpack.packb(value, default=_pack_numpy)


def unpackb(message: bytes) -> Any:
    """Decodes one message; arrays are copies that may be written to."""
    return msgpack.unpackb(message, object_hook=_unpack_numpy)


def _pack_numpy(value: Any) -> Any:
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"cannot send {type(value).__name__}; use NumPy arrays, lists, numbers and text")
    if value.dtype.kind not in _PLAIN_KINDS:
        raise TypeError(f"cannot send an array of dtype {value.dtype}; only plain numbers have a place in an observation")
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def _unpack_numpy(entries: dict) -> Any:
    if b"__ndarray__" in entries:
        flat = np.frombuffer(entries[b"data"], dtype=np.dtype(entries[b"dtype"]))
        return flat.reshape(entries[b"shape"]).copy()
    if b"__npgeneric__" in entries:
        return np.dtype(entries[b"dtype"]).type(entries[b"data"])
    return entries
