"""What is done when something happens to a machine: commands are run, and whoever wants to hear it is told."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
from typing import Final

from runtime.machines.description import Description
from runtime.mconsole.wire import NOTIFICATION_MAX, NoticeKind, Notification, encode_notification
from runtime.process.open_files import callers_limit
from runtime.process.processor import free_to_choose
from umlfs.host.programs import Program

log = logging.getLogger(__name__)

END_SECONDS: Final = 30.0
"""How long a command may take once the machine is gone."""
RUNNING_MAX: Final = 4
"""Commands at a time: a guest that hangs again and again starts no more."""


TERMINATED: Final = {
    NoticeKind.BOOT: b"\0",
    NoticeKind.PANIC: b"\0",
    NoticeKind.HANG: b"",
    NoticeKind.USER: b"",
}
"""What the kernel tells, and what its text ends with."""


class Hooks:
    """Runs `--on-panic` and `--on-hang`, with UML_UMID, UML_EVENT and UML_TEXT in their environment. Whoever listens at
    the socket of `mconsole=notify:` is told as by the kernel."""

    def __init__(self, description: Description) -> None:
        self._umid = description.umid
        self._commands = {NoticeKind.PANIC: description.on_panic, NoticeKind.HANG: description.on_hang}
        self._socket = description.notify
        self._running: list[Program] = []

    def heard(self, notification: Notification) -> None:
        """Start the command for `notification`, if there is one. Does not wait for it."""
        if self._socket and notification.kind in TERMINATED:
            _send(self._socket, notification)
        command = self._commands.get(notification.kind)
        self._running = [each for each in self._running if each.poll() is None]
        if not command or len(self._running) >= RUNNING_MAX:
            return
        variables = {"UML_UMID": self._umid, "UML_EVENT": str(notification.kind), "UML_TEXT": notification.text}
        try:
            with free_to_choose():
                self._running.append(
                    Program(
                        ["/bin/sh", "-c", f"ulimit -Sn {callers_limit()}; {command}"],
                        stdin=subprocess.DEVNULL,
                        env={**os.environ, **variables},
                    )
                )
        except (OSError, ValueError) as error:
            log.error("%s: %s", command, error)

    def close(self) -> None:
        """Wait for what runs still, for a while; then end it."""
        for each in self._running:
            try:
                each.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()


def _send(path: str, notification: Notification) -> None:
    """Tell the one who listens at `path`, if there is one who takes it now."""
    end = TERMINATED[notification.kind]
    data = notification.text.encode()[: NOTIFICATION_MAX - len(end)] + end
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto(encode_notification(notification.kind, data), path)
