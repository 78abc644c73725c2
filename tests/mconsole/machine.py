"""A machine's end of the protocol, without a machine."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runtime.mconsole.wire import Reply, encode_reply

Answer = Callable[[str], Sequence[bytes]]


def echo(text: str) -> Sequence[bytes]:
    """What was asked; `fail N TEXT` is an error, `pieces` a long text, `silence` nothing at all."""
    word, _, rest = text.partition(" ")
    if word == "fail":
        number, _, why = rest.partition(" ")
        return encode_reply(Reply(int(number), why))
    if word == "pieces":
        return encode_reply(Reply(0, "0123456789" * 200))
    return [] if word == "silence" else encode_reply(Reply(0, text))


@dataclass
class Machine:
    """What a fake machine has heard."""

    path: Path
    heard: list[bytes] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """The requests' texts, by the length that they tell."""
        return [each[12 : 12 + int.from_bytes(each[8:12], "little")].decode() for each in self.heard]


@contextlib.contextmanager
def machine(path: Path, answer: Answer = echo) -> Iterator[Machine]:
    """Answers requests at `path` from a thread of its own."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = Machine(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))

        def serve() -> None:
            while True:
                datagram, address = server.recvfrom(4096)
                if not datagram:
                    return
                found.heard.append(datagram)
                for piece in answer(datagram[12 : 12 + int.from_bytes(datagram[8:12], "little")].decode()):
                    with contextlib.suppress(OSError):
                        server.sendto(piece, address)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield found
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.sendto(b"", str(path))
            thread.join()
            path.unlink()
