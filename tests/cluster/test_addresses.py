from __future__ import annotations

import socket

from lfm4ads_tf.cluster.addresses import free_ports, is_taken


def test_ports_are_free_and_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20 and not any(map(is_taken, ports))
    assert not set(free_ports(20, without=ports)) & set(ports)


def test_a_port_is_taken_at_whatever_address() -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0")):
        (port,) = free_ports(1)
        with socket.socket(family) as other:
            other.bind((host, port))
            other.listen()
            assert is_taken(port)
        assert not is_taken(port)
