"""`HostFilesystem`: a directory of the host as a Filesystem."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict

from hostfs.coherence import Coherent
from hostfs.export import Cache
from hostfs.files import OPEN, OPEN_QUIETLY


class HostFilesystem(Coherent):
    """A directory of the host, and everything below it, to the extent that this process may use it.

    Owners are the host's: run by root, what is created belongs to the caller; run by anyone else, it belongs to
    that user, and giving it to another raises EPERM. Permissions are the consumer's to check (`access` answers
    ENOSYS); what the host refuses besides comes as EACCES or EPERM.

    Others may change the directory at any time. An inode whose name leads elsewhere by then raises ESTALE, upon
    which a kernel looks the name up again.
    """

    def __init__(
        self,
        root: str | bytes | os.PathLike[str],
        *,
        read_only: bool = False,
        cache: Cache = Cache.AUTO,
        stateless: bool | None = None,
        writeback: bool | None = None,
        append: bool = False,
    ) -> None:
        """Export the directory `root`; a symlink there is followed, nowhere below.

        `stateless` (default: unless `cache` is NEVER) answers ENOSYS to `open` and `opendir`, so that a consumer
        stops asking. `writeback` (default: if `cache` is ALWAYS) lets it gather writes; a Linux consumer that does
        so trusts its own idea of sizes and times, and never notices what others write to a file it knows. With
        `append` (for handles) what is written to a file that is opened goes to its end. OSError if `root` is no
        directory or cannot be searched.
        """
        super().__init__(root, read_only=read_only, cache=cache, stateless=stateless, writeback=writeback)
        self._handles = {}
        self._hows = OPEN_QUIETLY if read_only else OPEN
        self._pending = OrderedDict()
        self._append = append

    @property
    def made_up(self) -> bool:
        """The root lies on a filesystem such as proc, without storage behind it, and is shown empty."""
        return self._root.pseudo

    def disconnect(self) -> None:
        """Every lookup and every handle is given back; the numbers given so far are stale."""
        super().disconnect()
        self._pending.clear()
        while self._handles:
            _, handle = self._handles.popitem()
            with contextlib.suppress(OSError):
                os.close(handle.fd)
