"""The process within the namespaces of a network: makes what can be made only there, and hands out descriptors of it.

`interior.Interior` starts it and asks it, by messages on a socket; see there. It runs with no rights outside, and ends
when the other end is closed: with it, and with what was handed out, the namespaces end.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

from runtime.network.tap import open_tap
from umlfs.host.programs import run_program

MESSAGE_MAX: Final = 1 << 16
CLONE_NEWNET: Final = 0x40000000
ETH_P_ALL: Final = 3
_SOL_PACKET: Final = 263
_PACKET_ADD_MEMBERSHIP: Final = 1
_PACKET_MR_PROMISC: Final = 1
PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"


def run(words: Sequence[str], text: str) -> None:
    """Run a program. OSError with what it said if it fails."""
    environment = {"PATH": PATH, "LC_ALL": "C"}
    done = run_program(words, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise OSError(0, f"{words[0]}: {said[0] if said else f'exit status {done.returncode}'}")


def settings(values: dict[str, str]) -> None:
    """Write files below /proc/sys/net, those of this process's network. What this kernel does not have is left out."""
    for name, value in values.items():
        try:
            with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
                file.write(value)
        except FileNotFoundError:
            continue


def namespace(values: dict[str, str], inner: str, outer: str) -> int:
    """A descriptor of a new network namespace. It is furnished by commands of ip(8): `outer` out here, where it goes by
    the number of its process, `{pid}`, and then `inner` in there. OSError."""
    near, far = socket.socketpair()
    child = os.fork()
    if not child:
        near.close()
        _be_namespace(far, values, inner)
    far.close()
    try:
        said = near.recv(4096)
        if said != b"there":
            raise OSError(0, said.decode(errors="replace") or "no network namespace")
        found = os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            run(["ip", "-batch", "-"], outer.format(pid=child))
            near.send(b"go on")
            said = near.recv(4096)
            if said != b"done":
                raise OSError(0, said.decode(errors="replace") or "the network namespace cannot be furnished")
        except BaseException:
            os.close(found)
            raise
        return found
    finally:
        near.close()
        os.waitpid(child, 0)


def _be_namespace(far: socket.socket, values: dict[str, str], inner: str) -> None:
    """Of a process of its own: does not return."""
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        settings(values)
        far.send(b"there")
        if far.recv(16):
            run(["ip", "-batch", "-"], inner)
            far.send(b"done")
            far.recv(16)
    except BaseException as error:
        far.send((str(error.args[-1]) if error.args else repr(error)).encode())
    finally:
        os._exit(0)


def packets(interface: str) -> int:
    """A descriptor that gives a copy of each frame on an interface."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(ETH_P_ALL)) as found:
        found.bind((interface, ETH_P_ALL))
        number = socket.if_nametoindex(interface)
        request = struct.pack("iHH8s", number, _PACKET_MR_PROMISC, 0, b"")
        found.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, request)
        return found.detach()


def obey(message: dict[str, Any]) -> list[int]:
    """Do what one message says; descriptors for the other end. OSError, ValueError."""
    settings(message.get("settings", {}))
    if "run" in message:
        run(message["run"], message.get("input", ""))
    if "namespace" in message:
        return [namespace(**message["namespace"])]
    if "tap" in message:
        fd, _ = open_tap(message["tap"])
        return [fd]
    if "packets" in message:
        return [packets(message["packets"])]
    return []


def serve(connection: socket.socket) -> None:
    """Answer until the other end is gone."""
    while data := connection.recv(MESSAGE_MAX):
        found: list[int] = []
        try:
            found = obey(json.loads(data))
            answer: dict[str, Any] = {}
        except (OSError, ValueError) as error:
            answer = {"error": str(error.args[-1]) if error.args else repr(error)}
        socket.send_fds(connection, [json.dumps(answer).encode()], found)
        for fd in found:
            os.close(fd)


def main() -> int:
    """Serve the descriptor in the arguments."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    fd = int(sys.argv[1])
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    with socket.socket(fileno=fd) as connection:
        serve(connection)
    return 0


if __name__ == "__main__":
    sys.exit(main())
