"""`HostFilesystem`: a directory of the host as a Filesystem."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

from hostfs.aside import SetAside
from hostfs.attributes import HOST_LABELS, Attributes
from hostfs.directories import Directories
from hostfs.entries import Entries
from hostfs.files import Files
from hostfs.handles import Handles
from hostfs.locks import Locks
from hostfs.names import Names
from hostfs.opening import Opener
from hostfs.ownership import Owners, Ownership
from hostfs.resolver import Resolver
from hostfs.settings import Cache, Settings
from umlfs.compiled import extension
from umlfs.composed import Composed
from umlfs.filesystem import Consumer, Filesystem, Invalidator, QuickAnswer, Traits

ANSWERS_VERSION: Final = 2
"""Of what is expected of `hostfs/_answers.pyx`, which has the same number."""


class HostFilesystem(Composed):
    """A directory of the host, and everything below it, to the extent that this process may use it.

    Owners are the host's: run by root, what is created belongs to the caller; run by anyone else, it belongs to
    that user, and giving it to another raises EPERM. Permissions are the consumer's to check (`access` answers
    ENOSYS); what the host refuses besides comes as EACCES or EPERM.

    Others may change the directory at any time. An inode whose name leads elsewhere by then raises ESTALE, upon
    which a kernel looks the name up again.

    This class puts the parts together.
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
        owner: tuple[int, int] | None = None,
        snapshot: bool = False,
    ) -> None:
        """Export the directory `root`; a symlink there is followed, nowhere below.

        `stateless` (default: if `cache` is ALWAYS) answers ENOSYS to `open`, so that a consumer stops asking; then
        what it has open is lost once the host removes its name, unless the contents were used of late. `writeback`
        (default: if `cache` is ALWAYS) lets it gather writes; a Linux consumer that does so trusts its own idea of
        sizes and times, and never notices what others write to a file it knows. With `append` (for handles) what is
        written to a file that is opened goes to its end. What belongs to the user we run as is shown as `owner`'s, a
        uid and a gid. Of a `snapshot` directories are empty that we may not read. OSError if `root` is no directory or
        cannot be searched.
        """
        if stateless is None:
            stateless, opens_directories = cache is Cache.ALWAYS, cache is Cache.NEVER
        else:
            opens_directories = not stateless
        self.resolver = resolver = Resolver(root, stateless=stateless)
        read_only_root = read_only or resolver.root.pseudo
        self.settings = settings = Settings(
            cache=cache,
            read_only=read_only_root,
            stateless=stateless,
            opens_directories=opens_directories,
            snapshot=snapshot,
            locks=not stateless and cache is not Cache.ALWAYS,
            append=append,
        )
        self.traits = Traits(
            read_only=read_only_root,
            writeback=not read_only_root and (cache is Cache.ALWAYS if writeback is None else writeback),
            shared=cache is not Cache.ALWAYS,
            locks=settings.locks,
            direct_maps=cache is Cache.NEVER and not append,
        )
        self.handles = handles = Handles(resolver.descriptors, resolver.closer)
        self.locks = locks = Locks(settings, resolver.descriptors)
        self.aside = aside = SetAside()
        owners = Owners(owner)
        self.entries = entries = Entries(resolver, settings.valid_ns, owners)
        ownership = Ownership(resolver)
        opener = Opener(resolver, quietly=read_only)
        self.attributes = Attributes(resolver, settings, entries, opener, handles, owners)
        self.directories = Directories(resolver, settings, entries, aside)
        self._compose(
            Names(resolver, settings, entries, ownership, aside),
            self.attributes,
            Files(resolver, settings, entries, ownership, aside, opener, handles, locks),
            self.directories,
        )
        self._remark: str | None = None

    @property
    def made_up(self) -> bool:
        """The root lies on a filesystem such as proc, without storage behind it, and is shown empty."""
        return self.resolver.root.pseudo

    def show_access_lists(self) -> None:
        """Give out, and take, the lists by which the host judges access: for what copies and compares files."""
        self.attributes.kept_names = HOST_LABELS

    def leave_aside(self, paths: Iterable[Path]) -> None:
        """Never touch these directories of the host: mount points whose servers may be waiting for us.

        They are not shown, and EBUSY for what would change their names. They are known by name, and by their
        parents, which are looked at now.
        """
        self.aside.add(paths)

    # The consumer -----------------------------------------------------------------------------

    def running(self) -> AbstractAsyncContextManager[None]:
        return self.resolver.tasks.running()

    @property
    def failure(self) -> OSError | None:
        return self.resolver.tasks.failure

    def attach(self, invalidator: Invalidator) -> Filesystem:
        """With the cache AUTO: this filesystem, telling of what changes on the host.

        In each cache mode it is asked whenever something is opened, then: what is open stays, and who may not read a
        directory hears of it at once.
        """
        self.locks.drop_cached = invalidator.drop
        self.settings.stateless = False
        self.settings.opens_directories = True
        if self.settings.cache is not Cache.AUTO:
            return self
        try:
            from hostfs.coherence import Coherent  # no guest needs it

            return Coherent(self, self.resolver, self.directories, invalidator)
        except OSError as error:
            self._remark = (
                f"the host's changes are seen after a second, not at once: {error.strerror}"
                " (the limit is fs.inotify.max_user_instances)"
            )
            return self

    def quick_answers(
        self, session: Consumer, *, lower_layer: bool, read_only: bool, others: int
    ) -> QuickAnswer | None:
        if type(self) is not HostFilesystem or (answers := extension("hostfs._answers", ANSWERS_VERSION)) is None:
            return None
        made = answers.Answers(self, session, lower_layer=lower_layer, read_only=read_only, others=others)
        answer: QuickAnswer = made.answer
        return answer

    def remarks(self) -> list[str]:
        return [] if self._remark is None else [self._remark]

    def forget(self, ino: int, count: int) -> None:
        self.resolver.forget(ino, count)

    def disconnect(self) -> None:
        """Every lookup and every handle is given back; the numbers given so far are stale."""
        self.resolver.forget_all()
        self.directories.forget_all()
        self.handles.clear()
        self.locks.clear()
        self.locks.drop_cached = None

    async def close(self) -> None:
        self.disconnect()
        await self.resolver.close()

    async def syncfs(self) -> None:
        await self.attributes.syncfs()
