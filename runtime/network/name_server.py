"""The names of a network's machines, told by dnsmasq in a jail of its own, within the network."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import trio

from runtime.jail.grants import Grants
from runtime.jail.launch import Launch
from runtime.jail.layers import Mode
from runtime.process.keeper import Keeper
from runtime.process.kernel_process import KernelProcess
from umlfs.errors import UmlError

PROGRAM: Final = "dnsmasq"
INSTALL: Final = "install it: apt-get install dnsmasq-base"
FILE: Final = "names"
MEMORY: Final = 64 << 20
"""Bytes that it may take."""
PAUSE_SECONDS: Final = 0.5
"""Before it is started again."""


def find() -> str:
    """The program. UmlError if there is none."""
    path = shutil.which(PROGRAM, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if path is None:
        raise UmlError(f"no {PROGRAM} on this host", INSTALL)
    return path


class NameServer:
    """Answers at one address for the names of one domain, and passes on what else is asked."""

    def __init__(
        self,
        domain: str,
        address: str,
        upstream: str | None,
        namespaces: Callable[[], Sequence[int]],
        tell: Callable[[str], None],
    ) -> None:
        """`namespaces` makes the descriptors of `Grants.network`, which are closed once used; `tell` says to people
        that it ended, and is started again."""
        self._domain = domain
        self._address = address
        self._upstream = upstream
        self._namespaces = namespaces
        self._tell = tell
        self._names: Mapping[str, str] = {}
        self._file: Path | None = None
        self._process: KernelProcess | None = None

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            with Keeper(memory=Path("/tmp")) as keeper:
                self._file = keeper.directory / FILE
                self._write()
                self._process = process = await trio.to_thread.run_sync(partial(self._start, keeper))
                try:
                    status = await keeper.wait(process)
                finally:
                    self._process = self._file = None
            self._tell(f"{PROGRAM} ended (status {status}); it is started again")
            await trio.sleep(PAUSE_SECONDS)

    def set_names(self, names: Mapping[str, str]) -> None:
        """What it answers from now on: addresses by the names of machines."""
        self._names = dict(names)
        self._write()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGHUP)

    def _write(self) -> None:
        if self._file is None:
            return
        lines = (f"{address} {name}.{self._domain} {name}\n" for name, address in self._names.items())
        draft = self._file.with_suffix(".new")
        draft.write_text("".join(lines))
        draft.chmod(0o644)
        os.rename(draft, self._file)

    def _start(self, keeper: Keeper) -> KernelProcess:
        program = Path(find()).resolve()
        found = self._namespaces()
        try:
            return self._launch(keeper, program, found)
        finally:
            for fd in found:
                os.close(fd)

    def _launch(self, keeper: Keeper, program: Path, namespaces: Sequence[int]) -> KernelProcess:
        assert keeper.memory is not None
        launch = Launch(
            Mode.AUTO,
            program,
            "",
            directory=keeper.directory,
            memory=MEMORY,
            memory_directory=keeper.memory,
            memory_on_disk=False,
            grants=Grants(network=tuple(namespaces), speaks=True),
        )
        with launch:
            launch.prepare()
            process = keeper.launch(launch, self._command(program), output=subprocess.DEVNULL, env={"PATH": os.defpath})
        os.close(launch.directory)
        return process

    def _command(self, program: Path) -> list[str]:
        domain = self._domain
        return [
            str(program),
            *("--keep-in-foreground", "--conf-file=/dev/null", "--pid-file", "--user=", "--group=", "--log-facility=-"),
            *("--no-hosts", f"--addn-hosts={self._file}", "--no-resolv", f"--local=/{domain}/", "--bogus-priv"),
            *(f"--listen-address={self._address}", "--bind-interfaces", "--local-ttl=5", "--stop-dns-rebind"),
            *([f"--server={self._upstream}"] if self._upstream else []),
        ]
