"""Ports of this machine."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_240
_NO_RANGE = 32_768  # where most systems begin to choose by themselves


def free_ports(count: int, without: Sequence[int] = ()) -> list[int]:
    """Ports that no process listens on.

    They lie below those that the system gives to outgoing connections. From among these, an
    attempt to reach a server that has just died could itself take the server's port.

    Args:
        count: How many.
        without: Ports not to take.

    Returns:
        Different ports, drawn at random so that two launchers hardly draw the same.

    Raises:
        OSError: There are not so many.
    """
    begin = _NO_RANGE
    with suppress(OSError, ValueError):
        begin = int(_RANGE.read_text().split()[0])
    candidates = list(range(_LOWEST, begin)) or list(range(_NO_RANGE, 61_000))
    random.SystemRandom().shuffle(candidates)  # not the generator that seeds set
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            return found
        if port not in without and not is_taken(port):
            found.append(port)
    raise OSError(errno.EADDRNOTAVAIL, f"there are no {count} free ports")


def port_of(address: str) -> int:
    """The port of `host:port`."""
    return int(address.rpartition(":")[2])


def is_taken(port: int) -> bool:
    """Whether a process listens on a port, at any address of this machine.

    Args:
        port: The port. One whose connections are only just closed is free.

    Raises:
        OSError: This process may not listen on it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return True
            raise
    return False
