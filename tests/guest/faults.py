"""A guest works in six humfs whose disks fail, each in its way: `python -m tests.guest.faults DIRECTORY`.

In a mount namespace of its own. What each does before, during and after is printed, a line each.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import trio

from humfs import durability
from humfs.database import Database
from humfs.filesystem import open_filesystem
from humfs.host import Host, Locate
from humfs.volume import create
from runtime.machine.equipment import HostMount
from runtime.machine.machine import Machine, Options
from tests.guest.disks import MIB, shell
from umlfs.errors import UmlError
from umlfs.filesystem import NO_HANDLE, ROOT

BEFORE = "cd {} && mkdir before && echo kept >before/file && sync && cat before/file"
DURING = """\
cd {}
for one in 1 2 3; do
    mkdir new$one && head -c 500000 /dev/zero >new$one/file && sync new$one/file || break
    echo 3 >/proc/sys/vm/drop_caches
done 2>&1 | sed -n 's/.*: //p' | head -1
"""
UNCACHED = "echo 3 >/proc/sys/vm/drop_caches; cat {}/before/file"
AFTER = "cat {}/before/file 2>&1 | sed 's/.*: //'"

databases: list[Database] = []


class Watched(Database):
    """A database that the faults can be put into."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        databases.append(self)


hosts: list[WatchedHost] = []


class WatchedHost(Host):
    """Files that the faults can be put into."""

    def __init__(self, root: Path, locate: Locate) -> None:
        super().__init__(root, locate)
        self.root = root
        hosts.append(self)


@contextmanager
def full(root: Path) -> Iterator[None]:
    """The host's filesystem has no room left."""
    with open(root.parent / "filler", "wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            pass
    yield
    (root.parent / "filler").unlink()


@contextmanager
def read_only(root: Path) -> Iterator[None]:
    """The database takes no more, as after the kernel has found an error of the disk."""
    database = [each for each in databases if each.path.parent == root][-1]
    database.execute("PRAGMA query_only = ON")
    yield
    database.execute("PRAGMA query_only = OFF")


@contextmanager
def read_only_contents(root: Path) -> Iterator[None]:
    """The contents of files lie on a mount that becomes read-only. No mount does with a file open for writing."""
    host = [each for each in hosts if each.root == root][-1]
    for inode in list(host._open.values()):
        os.close(host.release(inode))
    subprocess.run(["mount", "-o", "remount,bind,ro", root / "data"], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,bind,rw", root / "data"], check=True)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Another program writes to the database, and takes its time."""
    with closing(sqlite3.connect(root / "metadata.sqlite", isolation_level=None, timeout=20)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def removed(root: Path) -> Iterator[None]:
    """Somebody takes the whole directory away."""
    shutil.rmtree(root)
    yield


@contextmanager
def cut_short(root: Path) -> Iterator[None]:
    """The database and its log lose their ends."""
    for name in ("metadata.sqlite", "metadata.sqlite-wal"):
        os.truncate(root / name, os.stat(root / name).st_size // 8192 * 4096)
    yield


FAULTS: list[Callable[[Path], object]] = [full, read_only, read_only_contents, locked, removed, cut_short]


async def main(directory: Path) -> None:
    durability.COMMIT_SECONDS = 0.2  # type: ignore[misc]
    durability.LOCK_SECONDS = 1.0  # type: ignore[misc]
    import humfs.store
    import humfs.volume

    setattr(humfs.store, "Database", Watched)  # noqa: B010 - the module does not export it
    setattr(humfs.volume, "Host", WatchedHost)  # noqa: B010
    roots = {}
    for fault in FAULTS:
        name = fault.__name__
        place = directory / name
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8M", "small", place], check=True)
        create(place / "fs", 64 * MIB)
        if fault is read_only_contents:
            subprocess.run(["mount", "--bind", place / "fs/data", place / "fs/data"], check=True)
        roots[name] = place / "fs"
    mounts = [HostMount(f"/mnt/{name}", f"humfs:{root}") for name, root in roots.items()]
    try:
        await work(roots, mounts)
    except UmlError as error:
        print(str(error).replace(f"{directory}/", "").replace(f".{os.getpid()}", ""))
    for name in ("full", "read_only", "read_only_contents", "locked"):
        print(f"{name}, opened again:", await again(roots[name]))


async def again(root: Path) -> str:
    """What is in the file that was synced before the fault."""
    filesystem = open_filesystem(root)
    try:
        directory = await filesystem.lookup(ROOT, b"before")
        file = await filesystem.lookup(directory.ino, b"file")
        data = bytearray(100)
        return data[: await filesystem.read_into(file.ino, NO_HANDLE, 0, [memoryview(data)])].decode().strip()
    finally:
        await filesystem.close()


async def work(roots: dict[str, Path], mounts: list[HostMount]) -> None:
    async with Machine(Options(mounts=mounts)) as machine:
        for fault in FAULTS:
            name = fault.__name__
            said = [await shell(machine, BEFORE.format(f"/mnt/{name}"))]
            await trio.sleep(0.5)  # the rows are written down, and no transaction is open
            with fault(roots[name]):  # type: ignore[attr-defined]
                said.append(await shell(machine, DURING.format(f"/mnt/{name}"), status=None))
                if fault is read_only_contents:  # what is there is still read
                    said.append(await shell(machine, UNCACHED.format(f"/mnt/{name}")))
            said.append(await shell(machine, AFTER.format(f"/mnt/{name}"), status=None))
            print(name, *(each.strip() or "nothing" for each in said), sep=": ", flush=True)
        print("alive:", (await shell(machine, "echo alive")).strip())


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
