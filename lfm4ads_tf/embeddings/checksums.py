"""Checksums of files that several processes read a stretch of."""

from __future__ import annotations

_POLYNOMIAL = 0xEDB88320  # of CRC-32, its highest power in the lowest bit
_ONE = 1 << 31  # the polynomial 1
_BYTE = 1 << 23  # x^8: what one more byte multiplies a remainder by


def joined_crc32(first: int, second: int, length: int) -> int:
    """The CRC-32 of two stretches of bytes, one after the other.

    A CRC is the remainder of the bytes as a polynomial, so that of both is
    `first * x^(8 length) + second`, modulo the polynomial of CRC-32.

    Args:
        first, second: `zlib.crc32` of either stretch.
        length: Bytes of the second one.
    """
    factor, power = _ONE, _BYTE
    while length:
        if length & 1:
            factor = _product(factor, power)
        power = _product(power, power)
        length >>= 1
    return _product(factor, first) ^ second


def _product(a: int, b: int) -> int:
    """a * b modulo the polynomial of CRC-32."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product
