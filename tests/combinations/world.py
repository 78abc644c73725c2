"""What command lines are combined of: roots, places, disks of every kind, made once."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from runtime.guest.initramfs import find_busybox
from tests import needs
from tests.guest.caller import Caller, eventually

APPLETS: Final = ("sh", "cat", "ls", "stat", "dd", "id", "sleep", "grep", "head", "sync", "mount", "sha256sum")
DISK_SIZE: Final = 4 << 20
SERVED: Final = "/served"


class World:
    """A caller's directory with everything in it."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.top = caller.directory

    def make(self) -> None:
        """Make all that commands are given."""
        self._tree()
        for name in ("share", "share2"):
            self.caller.make(name, {"seen": "seen\n", "sub/deep": "deep\n"})
        self._roots()
        self._disks()
        self.caller.own(self.top)

    def _tree(self) -> None:
        tree = self.caller.make("tree", {"etc/mark": "root\n"})
        for name in ("bin", "dev", "proc", "sys", "run", "tmp", "mnt", "there"):
            (tree / name).mkdir()
        shutil.copyfile(find_busybox(), tree / "bin/busybox")
        (tree / "bin/busybox").chmod(0o755)
        for name in APPLETS:
            (tree / "bin" / name).symlink_to("busybox")
        self.caller.own(tree)

    def _roots(self) -> None:
        """The tree again, in an image and as a humfs; the host's own root has it nowhere."""
        image = self.top / "root.img"
        image.write_bytes(b"")
        os.truncate(image, 32 << 20)
        self._run(needs.program("mke2fs"), "-qF", "-t", "ext4", "-d", self.top / "tree", image)
        shutil.copyfile(image, self.top / "base.root.img")
        self._uml("cow", "create", self.top / "root.cow", self.top / "base.root.img")
        self._uml("image", "convert", self.top / "tree", f"humfs:{self.top / 'tree.humfs'}")
        self._run(needs.program("qemu-img"), "convert", "-f", "raw", "-O", "qcow2", image, self.top / "root.qcow2")

    def _disks(self) -> None:
        raw = self.top / "disk.img"
        raw.write_bytes(b"")
        os.truncate(raw, DISK_SIZE)
        for name in ("served.img", "base.img"):
            shutil.copyfile(raw, self.top / name)
        self._uml("cow", "create", self.top / "disk.cow", self.top / "base.img")
        self._run(needs.program("qemu-img"), "create", "-qf", "qcow2", self.top / "disk.qcow2", str(DISK_SIZE))

    def _uml(self, *words: str | Path) -> None:
        done = subprocess.run(self.caller.command(*words), capture_output=True, stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == 0, done.stderr

    @staticmethod
    def _run(*words: str | Path) -> None:
        subprocess.run([str(word) for word in words], check=True, capture_output=True, stdin=subprocess.DEVNULL)

    @contextmanager
    def serving(self) -> Iterator[None]:
        """A disk at an NBD socket."""
        socket = self.top / "nbd"
        command = self.caller.command("serve", "nbd", self.top / "served.img", "--socket", socket)
        null = subprocess.DEVNULL
        with subprocess.Popen(command, stdin=null, stdout=null, stderr=null) as server:
            try:
                assert eventually(socket.exists)
                yield
            finally:
                server.terminate()
