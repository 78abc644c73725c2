"""The kind of source `volume`: one on a disk, `volume:FILE:NAME`, or `FILE:NAME` where FILE has it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import trio

from umlfs import sources
from umlfs.block import BlockDevice, Extent
from umlfs.errors import UmlError, UsageError
from umlfs.sources import OpenOptions, SourceKind, refuse_options

T = TypeVar("T")
_NAME: Final = re.compile(
    r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*/[A-Za-z0-9_.+][A-Za-z0-9_.+-]*|(?:luks|md)(?:[0-9]+|-[^/:]+)?"
)


class VolumeKind(SourceKind):
    """A volume of LVM, LUKS or MD on any image that is a source."""

    def files(self, argument: str) -> Sequence[str]:
        return (_divided(argument)[0],)

    def absolute(self, argument: str) -> str:
        path, name = _divided(argument)
        return f"{sources.detect(path).absolute().argument}:{name}"

    def within(self, path: str, rest: str) -> tuple[str, str | None] | None:
        """A word of a volume's form, of a disk that has it, or that has what volumes are in."""
        name, more, behind = rest.partition(":")
        if not _NAME.fullmatch(name):
            return None
        found = _apart(lambda: trio.run(_names, path))
        return (f"{path}:{name}", behind if more else None) if found is not None and found(name) else None

    async def open(self, argument: str, options: OpenOptions) -> BlockDevice:
        """UmlError for one that is not there, or cannot be used."""
        path, name = _divided(argument)
        refuse_options(f"volume:{argument}", options)
        if options.shared:
            raise UsageError(f"{path}: a volume cannot be shared", "share the disk that it lies on")
        base = await sources.detect(path).device(OpenOptions(options.read_only, options.snapshot, sync=options.sync))
        try:
            return OpenedVolume(base, await chosen(base, path, name))
        except BaseException:
            with trio.CancelScope(shield=True):
                await base.close()
            raise


async def chosen(base: BlockDevice, path: str, name: str) -> BlockDevice:
    """The volume `name` of those on `base`. UmlError."""
    from runtime.volumes import keys
    from runtime.volumes.find import volumes

    found = await volumes(base, keys.known())
    for each in found:
        if each.name == name:
            if each.device is None:
                raise UmlError(f"{path}:{name}: {each.problem}", None)
            return each.device
    locked = [each for each in found if each.device is None]
    if locked:
        raise UmlError(f"{path}: no volume {name}; {locked[0].name} is {locked[0].problem}", None)
    raise UsageError(f"{path}: no volume {name}", f"there is {', '.join(each.name for each in found) or 'none'}")


def _divided(argument: str) -> tuple[str, str]:
    path, colon, name = argument.rpartition(":")
    return (path, name) if colon else (argument, "")


async def _names(path: str) -> Callable[[str], bool] | None:
    """What tells whether a name may be that of a volume on the disk at `path`; None where there is none."""
    from runtime.volumes.find import volumes

    try:
        device = await _unlocked(sources.detect(path))
    except (UmlError, OSError):
        return None
    try:
        found = await volumes(device)
    except (UmlError, OSError):
        return None
    finally:
        with trio.CancelScope(shield=True):
            await device.close()
    names = {each.name for each in found}
    locked = any(each.device is None and each.name.startswith("luks") for each in found)
    return (lambda name: locked or name in names) if found else None


async def _unlocked(source: sources.Source) -> BlockDevice:
    """The disk, to look at also while it is in use: what is asked is only what is called so."""
    if source.scheme == "raw":
        from umlfs.blocks.raw import open_raw  # every word is shown to every kind

        return open_raw(source.argument, read_only=True, lock=False)
    return await source.device(OpenOptions(read_only=True, snapshot=True))


def _apart(work: Callable[[], T]) -> T:
    """Do what has an event loop of its own in a thread: there may be one here."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    if not results:
        raise UmlError("the disk cannot be looked into", "see 'uml image info'")
    return results[0]


class OpenedVolume(BlockDevice):
    """A volume, with the disk that it lies on, which is closed with it."""

    def __init__(self, base: BlockDevice, volume: BlockDevice) -> None:
        self._base = base
        self._volume = volume
        self.size = volume.size
        self.block_size = volume.block_size
        self.read_only = volume.read_only
        self.can_discard = volume.can_discard

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        await self._volume.read_into(offset, buffers)

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        await self._volume.write_from(offset, buffers)

    async def flush(self) -> None:
        await self._volume.flush()

    async def discard(self, offset: int, length: int) -> None:
        await self._volume.discard(offset, length)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        await self._volume.write_zeroes(offset, length, unmap)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self._volume.extents(offset, length)

    async def close(self) -> None:
        await self._base.close()


kind = VolumeKind()
