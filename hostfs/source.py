"""The kind of source `hostfs:DIR`."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from hostfs.filesystem import HostFilesystem
from hostfs.options import KNOWN, ViewOptions
from hostfs.settings import Cache
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, SourceKind

_CLAIM: Final = 50
"""Any directory will do, so a kind that recognises its own format in one has the better claim."""


class HostKind(SourceKind):
    """Directories of the host. Options: `cache=always|auto|never` (see `Cache`), `uid=`, `gid=`, `map=GUEST:HOST:COUNT`
    and `squash` (see `Mapping`), `append` (see `AppendOnly`), `hide=PATTERN` (see `Hidden`), `notify` (see `Watched`).
    """

    options = KNOWN

    def files(self, argument: str) -> tuple[str]:
        return (argument,)

    def claims(self, path: Path) -> int:
        """50 for a directory, else 0."""
        return _CLAIM if path.is_dir() else 0

    async def open(self, argument: str, options: OpenOptions) -> Filesystem:
        """Export the directory `argument`; of a file a directory with nothing else in it. UsageError for an unknown
        option or what is no directory, UmlError for one that we may not list or search."""
        view = ViewOptions.parsed(options.extra)
        usual = Cache.ALWAYS if options.snapshot else Cache.AUTO
        cache = _cache(options.extra.get("cache", usual.value))
        if view.notify:
            _check_notify(cache, options)
        directory, name = _divided(argument)
        filesystem = _export(directory, options, cache, view)
        if filesystem.made_up:
            await filesystem.close()
            raise UsageError(f"{argument}: the host's kernel makes it up", "a guest mounts its own")
        filesystem.leave_aside(options.aside)
        if options.snapshot:
            filesystem.show_access_lists()
        shown = view.applied(_watched(filesystem) if view.notify else filesystem)
        if not name:
            return shown
        from umlfs.views.one_file import OneFile

        return OneFile(shown, os.fsencode(name))


def _check_notify(cache: Cache, options: OpenOptions) -> None:
    if not options.announces:
        raise UsageError("hostfs: notify: nobody would be told here", "it is for --mount and 'uml mount'")
    if cache is Cache.ALWAYS:
        raise UsageError("hostfs: notify goes not with cache=always", "what is told of would not be seen")


def _watched(filesystem: HostFilesystem) -> Filesystem:
    from hostfs.watched import Watched

    try:
        return Watched(filesystem, filesystem.resolver)
    except OSError as error:
        raise UmlError(
            f"hostfs: notify: {error.strerror}", "the limit is fs.inotify.max_user_instances; see inotify(7)"
        ) from None


def _divided(argument: str) -> tuple[str, str]:
    """The directory to export, and the name of the one file in it that is meant, if it is one."""
    if not os.path.isfile(argument):
        return argument, ""
    directory, name = os.path.split(os.path.realpath(argument) if os.path.islink(argument) else argument)
    return directory or ".", name


def _export(argument: str, options: OpenOptions, cache: Cache, view: ViewOptions) -> HostFilesystem:
    if not argument:
        raise UsageError("hostfs: no directory named", "write hostfs:DIR")
    try:
        if os.path.isdir(argument) and not os.access(argument, os.R_OK | os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        usual = False if view.append else None  # what AppendOnly needs
        return HostFilesystem(
            argument,
            read_only=options.read_only,
            cache=cache,
            stateless=usual,
            writeback=usual,
            append=view.append,
            owner=options.owner if view.mapping is None else None,
            snapshot=options.snapshot and options.owner is not None,
        )
    except NotADirectoryError:
        raise UsageError(f"{argument}: not a directory", "name a directory, or say what kind it is") from None
    except FileNotFoundError:
        raise UsageError(f"{argument}: no such directory", "name an existing one") from None
    except OSError as error:
        raise UmlError(f"{argument}: {error.strerror}", "use a directory that you may read") from None


def _cache(word: str) -> Cache:
    try:
        return Cache(word)
    except ValueError:
        raise UsageError(f"hostfs: cache={word} means nothing", "say cache=always, auto or never") from None


kind: Final = HostKind()
