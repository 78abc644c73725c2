"""A server under load, to be killed: `python -m tests.humfs.load DIR SEED` changes the humfs in DIR without end.

What it does with a file that it has synced before is said on standard output first, and what it has synced after:

    forget PATH
    synced PATH MODE UID GID SHA256 XATTR

so that whoever kills it knows what must be there.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
import sys
from pathlib import Path

import trio

from humfs.filesystem import HumFilesystem, open_filesystem
from humfs.names import EXCHANGE
from umlfs.filesystem import NO_HANDLE, ROOT, Caller, SetAttr

XATTR = b"user.mark"


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Load:
    """Random changes to a small tree."""

    def __init__(self, filesystem: HumFilesystem, seed: int) -> None:
        self.fs = filesystem
        self.seed = seed
        self.random = random.Random(seed)
        self.directories: dict[str, int] = {"": ROOT}
        self.files: dict[str, int] = {}
        self.synced: set[str] = set()
        self.count = 0

    def caller(self) -> Caller:
        return Caller(self.random.randrange(1, 5000), self.random.randrange(1, 5000), 1)

    def name(self) -> bytes:
        self.count += 1
        return f"{self.random.choice('abcdef')}{self.seed}-{self.count}".encode()

    def drop(self, path: str) -> None:
        """Nothing is promised of the file any more."""
        if path in self.synced:
            self.synced.discard(path)
            say("forget", path)

    async def make(self) -> None:
        parent = self.random.choice(list(self.directories))
        name = self.name()
        mode = self.random.choice([0o600, 0o644, 0o755, 0o4755])
        entry, _ = await self.fs.create(self.directories[parent], name, mode, os.O_RDWR, 0, self.caller())
        self.files[f"{parent}/{name.decode()}"] = entry.ino
        await self.fs.write_from(entry.ino, NO_HANDLE, 0, [memoryview(self.random.randbytes(5000))])

    async def mkdir(self) -> None:
        if len(self.directories) > 30:
            return
        parent = self.random.choice(list(self.directories))
        name = self.name()
        entry = await self.fs.mkdir(self.directories[parent], name, 0o755, 0, self.caller())
        self.directories[f"{parent}/{name.decode()}"] = entry.ino

    def pick(self) -> str:
        return self.random.choice(list(self.files))

    def place(self, path: str) -> tuple[int, bytes]:
        directory, _, name = path.rpartition("/")
        return self.directories[directory], name.encode()

    async def change(self) -> None:
        path = self.pick()
        self.drop(path)
        ino = self.files[path]
        await self.fs.write_from(ino, NO_HANDLE, self.random.randrange(6000), [memoryview(b"changed")])
        await self.fs.setattr(ino, SetAttr(uid=self.random.randrange(5000), mode=self.random.choice([0o600, 0o640])))
        await self.fs.setxattr(ino, XATTR, b"%d" % self.random.randrange(1000))

    async def sync(self) -> None:
        path = self.pick()
        ino = self.files[path]
        await self.fs.fsync(ino, NO_HANDLE)
        attr, _ = await self.fs.getattr(ino)
        data = bytearray(attr.size)
        await self.fs.read_into(ino, NO_HANDLE, 0, [memoryview(data)])
        listed = await self.fs.listxattr(ino)
        mark = (await self.fs.getxattr(ino, XATTR)).decode() if XATTR in listed else "-"
        digest = hashlib.sha256(data).hexdigest()
        self.synced.add(path)
        say("synced", path, stat.S_IMODE(attr.mode), attr.uid, attr.gid, digest, mark)

    async def rename(self) -> None:
        path = self.pick()
        parent = self.random.choice(list(self.directories))
        over = self.random.random() < 0.4
        target = self.pick() if over else f"{parent}/{self.name().decode()}"
        if target == path:
            return
        self.drop(path)
        self.drop(target)
        old = self.files.pop(target, None)
        await self.fs.rename(*self.place(path), *self.place(target))
        self.files[target] = self.files.pop(path)
        if old is not None and self.random.random() < 0.5:
            self.fs.forget(old, 1 << 30)

    async def unlink(self) -> None:
        if len(self.files) < 20:
            return
        path = self.pick()
        self.drop(path)
        ino = self.files.pop(path)
        await self.fs.unlink(*self.place(path))
        if self.random.random() < 0.7:
            self.fs.forget(ino, 1 << 30)

    async def link(self) -> None:
        path = self.pick()
        parent = self.random.choice(list(self.directories))
        name = self.name()
        # A second name is never synced or changed, so that the first one's promise stands.
        await self.fs.link(self.files[path], self.directories[parent], name)

    async def exchange(self) -> None:
        path, other = self.pick(), self.pick()
        if path == other:
            return
        self.drop(path)
        self.drop(other)
        await self.fs.rename(*self.place(path), *self.place(other), EXCHANGE)
        self.files[path], self.files[other] = self.files[other], self.files[path]

    async def move_directory(self) -> None:
        """With all that is in it; nothing is promised of that any more."""
        path = self.random.choice(list(self.directories))
        if not path:
            return
        target = f"/{self.name().decode()}"
        below = path + "/"
        for file in [file for file in self.files if file.startswith(below)]:
            self.drop(file)
        await self.fs.rename(*self.place(path), *self.place(target))
        for known in (self.files, self.directories):
            moved = {name: known.pop(name) for name in list(known) if name == path or name.startswith(below)}
            known.update((target + name[len(path) :], ino) for name, ino in moved.items())

    async def make_special(self) -> None:
        """What has no contents: a device, and a symlink."""
        parent = self.directories[self.random.choice(list(self.directories))]
        await self.fs.mknod(parent, self.name(), stat.S_IFCHR | 0o600, os.makedev(1, 5), 0, self.caller())
        await self.fs.symlink(parent, self.name(), b"nowhere", self.caller())

    async def run(self) -> None:
        await self.make()
        often = [self.make] * 4 + [self.change] * 3 + [self.rename] * 2
        steps = [*often, self.unlink, self.link, self.mkdir, self.exchange, self.move_directory, self.make_special]
        while True:
            await self.random.choice(steps)()
            if self.random.random() < 0.05:
                await self.sync()


async def main(root: Path, seed: int) -> None:
    await Load(open_filesystem(root), seed).run()


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
