"""The host's side: directories and files under `data/`, reached one component at a time.

Nothing here follows a symlink or joins a path. A directory is held by an O_PATH descriptor, which stays good when
the directory is renamed; a file by one open for reading and writing. Of both, a bounded number is held.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from humfs.inodes import ORPHANAGE, Inode
from umlfs.filesystem import ROOT
from umlfs.host.syscalls import failure, syncfs

DATA: Final = "data"
ORPHANS: Final = "orphans"

FILE_MODE: Final = 0o600
DIRECTORY_MODE: Final = 0o700
"""What is created under data/ is for its owner alone, whatever the guest's mode."""

DIRECTORIES_MAX: Final = 512
FILES_MAX: Final = 512
_RESERVE: Final = 64
_LEAST: Final = 16

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SAFE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_SYNC_ALL: Final = 32
"""So many directories to sync one by one cost more than syncing the host's whole filesystem."""

Locate = Callable[[int], tuple[int, bytes] | None]


def limits() -> tuple[int, int]:
    """How many directories and files to hold, within half of RLIMIT_NOFILE."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = (1 << 20 if soft == resource.RLIM_INFINITY else soft) - _RESERVE
    return max(_LEAST, min(DIRECTORIES_MAX, room // 4)), max(_LEAST, min(FILES_MAX, room // 4))


class Directories:
    """Descriptors of the directories of one tree, by inode number."""

    def __init__(self, path: Path | str, locate: Locate, most: int) -> None:
        """`locate` tells parent and name of a directory's inode."""
        self.root = os.open(path, _DIRECTORY)
        self._locate = locate
        self._most = most
        self._held: OrderedDict[int, int] = OrderedDict()

    def get(self, ino: int) -> int:
        """An O_PATH descriptor of the directory, good until the next call. ESTALE for one that has no name."""
        if ino == ROOT:
            return self.root
        fd = self._held.get(ino)
        if fd is not None:
            self._held.move_to_end(ino)
            return fd
        names: list[tuple[int, bytes]] = []
        at = ino
        while at != ROOT and at not in self._held:
            found = self._locate(at)
            if found is None or len(names) > 1 << 16:
                raise failure(errno.ESTALE)
            names.append((at, found[1]))
            at = found[0]
        fd = self.root if at == ROOT else self._held[at]
        for number, name in reversed(names):
            fd = self._enter(fd, number, name)
        return fd

    def add(self, parent: int, ino: int, name: bytes) -> None:
        """Know the directory `name`, just made, so that nobody has to look for it."""
        self._enter(self.get(parent), ino, name)

    def _enter(self, fd: int, ino: int, name: bytes) -> int:
        below = os.open(name, _DIRECTORY, dir_fd=fd)
        self._held[ino] = below
        if len(self._held) > self._most:
            _, oldest = self._held.popitem(last=False)
            os.close(oldest)
        return below

    def drop(self, ino: int) -> None:
        """The directory is gone."""
        fd = self._held.pop(ino, None)
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()
        os.close(self.root)


class Host:
    """The files of one humfs directory."""

    def __init__(self, root: Path, locate: Locate) -> None:
        directories_max, self._files_max = limits()
        self.directories = Directories(root / DATA, locate, directories_max)
        self.device = os.fstat(self.directories.root).st_dev
        with contextlib.suppress(FileExistsError):
            os.mkdir(root / ORPHANS, DIRECTORY_MODE)
        self.orphans = os.open(root / ORPHANS, _DIRECTORY)
        self._open: OrderedDict[int, Inode] = OrderedDict()
        self._only_readable: set[int] = set()
        """Those whose descriptors are open for reading alone: what they lie on has become read-only."""
        self._detached: dict[int, Inode] = {}
        """Those whose files have no name any more, and live by their descriptors."""

    def place(self, inode: Inode) -> int:
        """A descriptor of the directory that has the inode's file under `inode.name`."""
        return self.orphans if inode.parent == ORPHANAGE else self.directories.get(inode.parent)

    def stat(self, inode: Inode) -> os.stat_result:
        """lstat of the inode's file."""
        return os.stat(inode.name, dir_fd=self.place(inode), follow_symlinks=False)

    def file(self, inode: Inode) -> int:
        """A descriptor of the inode's file, open for reading and writing, good until the next await. EROFS if it is not
        to be written."""
        if inode.fd >= 0 and inode.ino in self._only_readable:
            if inode.busy:
                raise failure(errno.EROFS)
            os.close(self.release(inode))
        return self._file(inode, os.O_RDWR)

    def readable(self, inode: Inode) -> int:
        """Likewise, for reading."""
        try:
            return self._file(inode, os.O_RDWR)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
        fd = self._file(inode, os.O_RDONLY)
        self._only_readable.add(inode.ino)
        return fd

    def _file(self, inode: Inode, flags: int) -> int:
        inode.used = True
        if inode.fd >= 0:
            return inode.fd
        self._only_readable.discard(inode.ino)
        place = self.place(inode)
        try:
            fd = os.open(inode.name, flags | _SAFE, dir_fd=place)
        except PermissionError:
            # Put there by hand, without the owner's permission to use it.
            self._permit(inode.name, place)
            fd = os.open(inode.name, flags | _SAFE, dir_fd=place)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise failure(errno.EIO)
        self.hold(inode, fd)
        return fd

    @staticmethod
    def _permit(name: bytes, place: int) -> None:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISREG(mode):
                os.chmod(f"/proc/self/fd/{fd}", stat.S_IMODE(mode) & 0o777 | FILE_MODE)
        finally:
            os.close(fd)

    def hold(self, inode: Inode, fd: int) -> None:
        """Keep `fd` as the inode's file, and close those used longest ago if there are too many."""
        inode.fd = fd
        inode.used = True
        self._open[inode.ino] = inode
        if len(self._open) > self._files_max:
            self._evict()

    def _evict(self) -> None:
        for _ in range(2 * len(self._open)):
            ino, inode = self._open.popitem(last=False)
            if not (inode.used or inode.busy):
                os.close(inode.fd)
                inode.fd = -1
                return
            inode.used = False
            self._open[ino] = inode

    def release(self, inode: Inode) -> int:
        """Take the descriptor away from the inode; the caller closes it. -1 if it has none."""
        fd, inode.fd = inode.fd, -1
        self._open.pop(inode.ino, None)
        self._detached.pop(inode.ino, None)
        return fd

    # The last name ----------------------------------------------------------------------------

    def unlink(self, inode: Inode, name: bytes, place: int, *, survives: bool) -> None:
        """Remove a name of the inode's file. With `survives` it is the last one, and the file is still in use."""
        if not survives:
            os.unlink(name, dir_fd=place)
        elif self._detach(inode):
            with self._detached_if_done(inode):
                os.unlink(name, dir_fd=place)
        else:
            os.rename(name, b"%d" % inode.ino, src_dir_fd=place, dst_dir_fd=self.orphans)

    def rename_over(
        self, place: int, name: bytes, inode: Inode, new_place: int, new_name: bytes, *, survives: bool
    ) -> None:
        """Rename onto a name of the inode's file, at no moment without one of the two; `survives` as for `unlink`."""
        if not survives:
            os.rename(name, new_name, src_dir_fd=place, dst_dir_fd=new_place)
        elif self._detach(inode):
            with self._detached_if_done(inode):
                os.rename(name, new_name, src_dir_fd=place, dst_dir_fd=new_place)
        else:
            self._rename_over_orphan(place, name, b"%d" % inode.ino, new_place, new_name)

    def _rename_over_orphan(self, place: int, name: bytes, orphan: bytes, new_place: int, new_name: bytes) -> None:
        os.link(new_name, orphan, src_dir_fd=new_place, dst_dir_fd=self.orphans, follow_symlinks=False)
        try:
            os.rename(name, new_name, src_dir_fd=place, dst_dir_fd=new_place)
        except OSError:
            os.unlink(orphan, dir_fd=self.orphans)
            raise

    def drop_orphan(self, inode: Inode) -> None:
        """Nobody uses a file without a name any more. (A detached one goes when its descriptor is closed.)"""
        if inode.ino not in self._detached:
            os.unlink(inode.name, dir_fd=self.orphans)

    def _detach(self, inode: Inode) -> bool:
        """Keep the file's descriptor until `release`: half as much work for the host as another name. False if it has
        none, or too many are kept."""
        if not inode.is_file or len(self._detached) >= self._files_max // 2:
            return False
        try:
            self.file(inode)
        except OSError:
            return False
        del self._open[inode.ino]
        self._detached[inode.ino] = inode
        return True

    @contextlib.contextmanager
    def _detached_if_done(self, inode: Inode) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.hold(self._detached.pop(inode.ino), inode.fd)
            raise

    def close(self) -> None:
        for inode in (*self._open.values(), *self._detached.values()):
            os.close(inode.fd)
            inode.fd = -1
        self._open.clear()
        self._detached.clear()
        self.directories.close()
        os.close(self.orphans)


def sync_directories(fds: list[int], root: int) -> None:
    """Have the names in the directories behind `fds` (O_PATH) on the disk, and close them. Waits.

    `root` is any descriptor on the same filesystem.
    """
    try:
        if len(fds) > _SYNC_ALL:
            own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
            try:
                syncfs(own)
            finally:
                os.close(own)
            return
        for fd in fds:
            own = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            try:
                os.fsync(own)
            finally:
                os.close(own)
    finally:
        for fd in fds:
            os.close(fd)
