"""Seeds that depend on names, not on the order in which things are made."""

from __future__ import annotations

import zlib

import tf_keras


def derive(seed: int, name: str) -> int:
    """A 31-bit seed for the thing called `name` of a run with this seed."""
    return zlib.crc32(f"{seed}:{name}".encode()) & 0x7FFFFFFF


def glorot(seed: int, name: str) -> tf_keras.initializers.Initializer:
    """Glorot-uniform initialiser whose values depend on the seed and the name alone."""
    return tf_keras.initializers.GlorotUniform(seed=derive(seed, name))
