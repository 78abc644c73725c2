"""/config in a site's guest: its own settings, which are checked before they count."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Iterable
from dataclasses import replace

from runtime.sites.config import Mode, SiteConfig, handler_of
from umlfs.errors import UsageError
from umlfs.externfs.calls import instant
from umlfs.externfs.node import Child, Directory, File
from umlfs.host.syscalls import failure


class Settings(Directory):
    """`handler`, `mode` and `time-limit`; the last is at most what the server's owner allows. They are the guest's root
    user's to change, and count until the server ends."""

    mode = 0o755

    def __init__(self, config: SiteConfig, changed: Callable[[SiteConfig], None]) -> None:
        self.config = config
        self._most = config.time_limit
        self._changed = changed

    @instant
    async def children(self) -> Iterable[Child]:
        return [(name, Setting(self, name)) for name in ("handler", "mode", "time-limit")]

    def text(self, name: str) -> str:
        """A setting as it is."""
        if name == "handler":
            return shlex.join(self.config.handler)
        return self.config.mode if name == "mode" else f"{self.config.time_limit:g}"

    def put(self, name: str, text: str) -> None:
        """Change one. EINVAL if it means nothing."""
        try:
            self.config = self._with(name, text)
        except (UsageError, ValueError):
            raise failure(errno.EINVAL) from None
        self._changed(self.config)

    def _with(self, name: str, text: str) -> SiteConfig:
        if name == "handler":
            return replace(self.config, handler=handler_of(name, text))
        if name == "mode":
            if (mode := Mode(text)).by_socket and not self.config.socket:
                raise ValueError(text)
            return replace(self.config, mode=mode)
        seconds = float(text)
        if not 0 < seconds <= self._most:
            raise ValueError(text)
        return replace(self.config, time_limit=seconds)


class Setting(File):
    """One of them."""

    mode = 0o644
    size_max = 4096

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._name = name

    @property
    def key(self) -> tuple[Settings, str]:
        return self._settings, self._name

    @instant
    async def read(self) -> str:
        return self._settings.text(self._name) + "\n"

    @instant
    async def write(self, data: bytes) -> None:
        self._settings.put(self._name, data.decode(errors="replace").strip())
