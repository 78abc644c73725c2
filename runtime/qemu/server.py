"""An image that a qemu-nbd of our own serves, for as long as it is open."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

import trio

from runtime.host.needs import need, path_of
from runtime.process.keeper import Keeper
from umlfs.block import BlockDevice, Extent
from umlfs.errors import UmlError
from umlfs.host.holder import described_with_parents
from umlfs.host.lock import holder
from umlfs.nbd.source import unix
from umlfs.sources import OpenOptions

START_SECONDS: Final = 15.0
SOCKET: Final = "nbd"
END_SECONDS: Final = 15.0
"""How long qemu-nbd may take to write back its own tables when it is to end."""
REFUSAL_SECONDS: Final = 2.0
"""How long a qemu-nbd that broke off may take to say why and end."""
_RETRY_SECONDS: Final = 0.005
WORDS_MAX: Final = 4096
INSTALL: Final = f"install it with `apt install {need('qemu-nbd').package}`"


class QemuDevice(BlockDevice):
    """An image as qemu reads it. Its server ends when the device is closed, or with this process, however that ends."""

    def __init__(self, device: BlockDevice, keeper: Keeper, process: subprocess.Popen[bytes]) -> None:
        """Takes over all three."""
        self._device = device
        self._keeper = keeper
        self._process = process
        self.size = device.size
        self.block_size = device.block_size
        self.read_only = device.read_only
        self.can_discard = device.can_discard

    @classmethod
    async def start(cls, path: str, image_format: str, options: OpenOptions) -> Self:
        """Have a new server serve the image at `path`, for writing too unless `options` say otherwise.

        UmlError if there is no qemu-nbd, or with its words if it does not take the image: another has it in use, it is
        encrypted or damaged, its backing file is not there.
        """
        program = path_of("qemu-nbd")
        if program is None:
            raise UmlError(f"{path}: a {image_format} image, which takes qemu-nbd", INSTALL)
        with contextlib.ExitStack() as stack:
            keeper = stack.enter_context(Keeper())
            words = [program, *_words(keeper, path, image_format, options)]
            process = keeper.spawn(words, output=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"})
            if process.stderr is not None:
                stack.enter_context(process.stderr)
            device = await _connect(keeper, process, path, options)
            stack.pop_all()
            return cls(device, keeper, process)

    async def read_into(self, offset: int, buffers: Sequence[memoryview]) -> None:
        await self._device.read_into(offset, buffers)

    async def write_from(self, offset: int, buffers: Sequence[memoryview]) -> None:
        await self._device.write_from(offset, buffers)

    async def flush(self) -> None:
        await self._device.flush()

    async def discard(self, offset: int, length: int) -> None:
        await self._device.discard(offset, length)

    async def write_zeroes(self, offset: int, length: int, unmap: bool = True) -> None:
        await self._device.write_zeroes(offset, length, unmap)

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        return await self._device.extents(offset, length)

    async def close(self) -> None:
        """Hang up, and have the server write back its tables and end."""
        with trio.CancelScope(shield=True):
            try:
                await self._device.close()
                self._process.terminate()
                with trio.move_on_after(END_SECONDS):
                    await self._keeper.wait(self._process)
            finally:
                self._keeper.close()
                if self._process.stderr is not None:
                    self._process.stderr.close()


def _words(keeper: Keeper, path: str, image_format: str, options: OpenOptions) -> list[str]:
    """Its arguments. A name that begins with a word and a colon would be a protocol: the path is absolute."""
    words = ["--persistent", "--shared=4", f"--socket={keeper.directory / SOCKET}", f"--format={image_format}"]
    if options.read_only:
        words.append("--read-only")
    else:
        cache = "writethrough" if options.sync else "writeback"
        words += [f"--cache={cache}", f"--discard={'unmap' if options.discard else 'ignore'}"]
    return [*words, str(Path(path).absolute())]


async def _connect(keeper: Keeper, process: subprocess.Popen[bytes], path: str, options: OpenOptions) -> BlockDevice:
    """Connect when qemu-nbd has opened the image: it listens before it does, and hangs up if it cannot."""
    uri = f"///?socket={quote(str(keeper.directory / SOCKET))}"
    wanted = OpenOptions(read_only=options.read_only, discard=options.discard)
    with trio.move_on_after(START_SECONDS):
        while process.poll() is None:
            if (keeper.directory / SOCKET).is_socket():
                try:
                    return await unix.open(uri, wanted)
                except UmlError:
                    with trio.move_on_after(REFUSAL_SECONDS):
                        await keeper.wait(process)
            await trio.sleep(_RETRY_SECONDS)
    refusal = _refusal(process)
    if " lock" in refusal and (who := _holder(path)):
        raise UmlError(f"{path}: in use by {who}", "end that first")
    raise UmlError(f"{path}: {refusal}", "see 'qemu-img check'")


def _holder(path: str) -> str | None:
    """Who has a lock on the image, if that shows."""
    with contextlib.suppress(OSError), open(path, "rb") as image:
        pid = holder(image.fileno(), exclusive=True)
        return described_with_parents(pid) if pid is not None and pid > 0 else None
    return None


def _refusal(process: subprocess.Popen[bytes]) -> str:
    """What qemu-nbd said against the image, on one line."""
    if process.poll() is None or process.stderr is None:
        return "qemu-nbd does not start to serve it"
    said = process.stderr.read(WORDS_MAX).decode(errors="replace").replace("qemu-nbd: ", "")
    lines = list(dict.fromkeys(line.strip() for line in said.splitlines() if line.strip()))
    return f"qemu cannot use it: {' '.join(lines) or 'it ended without a word'}"
