"""What the mconsole programs do themselves, and what they make of a request before it is sent.

Names of local commands need only begin the line, as the kernel's do: `quitting` quits.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from runtime.mconsole.blocking import ask
from runtime.mconsole.exchange import ANSWER_SECONDS
from runtime.mconsole.sockets import find_socket
from runtime.mconsole.wire import VERSION, Reply, bytes_of, text_of
from umlfs.errors import UmlError

LOG_PIECE: Final = 506
"""Bytes of text in one `log` request: the rest goes for the word."""

LOCAL_HELP: Final = """\
Additional local mconsole commands:
    quit - Quit mconsole
    switch <socket-name> - Switch control to the given machine
    log -f <filename> - use contents of <filename> as UML log messages
    mconsole-version - version of this mconsole program
    int  - Interrupt UML session"""

NO_PID: Final = "Cannot determine the PID of your UML session, not sending signal."

REQUESTS: Final = (
    *("version", "help", "halt", "reboot", "config ", "remove ", "sysrq ", "cad", "stop", "go", "log ", "proc "),
    *("stack ", "devices", "stats", "snapshot", "quit", "switch ", "mconsole-version", "int"),
)
"""Every command there is, for completion."""

_CONFIG: Final = re.compile(r"(config\s+(ubd|hostfs)\w*=|snapshot\s+)(.+)", re.DOTALL)
_FILES: Final = 2
"""How many of the words of `config ubd0=cow,backing,serial` are files."""


class Quit(Exception):
    """The person wants to leave."""


class Show(Protocol):
    """Where answers go."""

    def reply(self, reply: Reply) -> None:
        """What the machine said."""

    def say(self, text: str) -> None:
        """What the program itself says, a line or some."""


class CommandSession:
    """Commands to one machine at a time. All of this blocks."""

    def __init__(
        self,
        name: str,
        show: Show,
        *,
        timeout: float = ANSWER_SECONDS,
        find: Callable[[str], Path] = find_socket,
        request: Callable[[Path, str, float], Reply] = ask,
    ) -> None:
        self.name = name
        self._show = show
        self._timeout = timeout
        self._find = find
        self._ask = request
        self._path: Path | None = None
        self._local: dict[str, Callable[[str], int]] = {
            "quit": self._quit,
            "help": self._help,
            "switch": self._switch,
            "log": self._log,
            "mconsole-version": self._version,
            "int": self._interrupt,
        }

    def run(self, line: str) -> int:
        """Do one command; gives the error of the machine's reply, 0 if there is none.

        Quit if it says so. UmlError if the machine cannot be asked, OSError for a file that cannot be read.
        """
        for word, command in self._local.items():
            if line.startswith(word):
                return command(line.removeprefix(word).lstrip())
        return self._request(with_absolute_paths(line))

    def find(self) -> Path:
        """The machine's socket. UmlError if there is none."""
        if self._path is None:
            self._path = self._find(self.name)
        return self._path

    def _request(self, text: str) -> int:
        reply = self._ask(self.find(), text, self._timeout)
        self._show.reply(reply)
        return reply.err

    def _quit(self, argument: str) -> int:
        raise Quit

    def _help(self, argument: str) -> int:
        err = self._request(f"help{argument}")
        self._show.say(LOCAL_HELP)
        return err

    def _switch(self, name: str) -> int:
        self._path = self._find(name)
        self.name = name
        self._show.say(f"Switched to '{name}'")
        return 0

    def _log(self, argument: str) -> int:
        option, _, name = argument.partition(" ")
        data = Path(name.strip()).read_bytes() if option == "-f" else bytes_of(argument)
        # Where one request could fail, so could all that follow.
        return next(filter(None, map(self._request, log_requests(data))), 0)

    def _version(self, argument: str) -> int:
        self._show.say(f"uml_mconsole client version {VERSION}")
        return 0

    def _interrupt(self, argument: str) -> int:
        try:
            pid = int((self.find().parent / "pid").read_text())
            if pid < 2:
                raise ValueError(pid)
            os.kill(pid, signal.SIGINT)
        except (OSError, ValueError) as error:
            raise UmlError(NO_PID) from error
        return 0


def log_requests(data: bytes) -> Iterator[str]:
    """The requests that put `data` into the kernel's log, the last one ending its last line."""
    for start in range(0, len(data), LOG_PIECE):
        yield f"log {text_of(data[start : start + LOG_PIECE].replace(bytes(1), b' '))}"
    if not data.endswith(b"\n"):
        yield "log \n"


def with_absolute_paths(text: str) -> str:
    """The request with the files of `config ubd…=`, `config hostfs…=` and `snapshot` as absolute paths: the machine has
    a working directory of its own. What names no file of a directory that exists stays as it is."""
    found = _CONFIG.match(text)
    if found is None:
        return text
    if found[2] in ("hostfs", None):
        return found[1] + _absolute_source(found[3])
    words = found[3].split(",")
    return found[1] + ",".join([*map(_absolute, words[:_FILES]), *words[_FILES:]])


def _absolute_source(word: str) -> str:
    from umlfs import sources  # takes longer to load than most requests take

    scheme, colon, rest = word.partition(":")
    return f"{scheme}:{_absolute(rest)}" if colon and scheme in sources.schemes() else _absolute(word)


def _absolute(word: str) -> str:
    directory, name = os.path.split(word)
    if not name or "://" in word or not os.path.isdir(directory or "."):
        return word
    return os.path.join(os.path.realpath(directory or "."), name)
