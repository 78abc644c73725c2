"""Servers on the host's loopback, for guests to reach."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def greeting(text: bytes = b"hello\n", address: str = "127.0.0.1") -> Iterator[int]:
    """A TCP server that says `text` to everyone and hangs up; its port."""
    with socket.create_server((address, 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(text)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port of the loopback that is free now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def heard(port: int, seconds: float = 10) -> bytes:
    """What a server on the loopback says until it hangs up; nothing if there is none."""
    try:
        with socket.create_connection(("127.0.0.1", port), seconds) as connection:
            return b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError:
        return b""
