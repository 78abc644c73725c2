"""Images in formats that qemu knows and we do not: read through a qemu-nbd of our own."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import trio

from runtime.process.keeper import Keeper
from umlfs.block import BlockDevice
from umlfs.blocks.foreign import HEAD, format_of_head
from umlfs.errors import UmlError
from umlfs.nbd.source import unix
from umlfs.sources import OpenOptions

START_SECONDS: Final = 15.0
_RETRY_SECONDS: Final = 0.005
INSTALL: Final = "install it with `apt install qemu-utils`"


def format_of(path: str) -> str | None:
    """qemu's name for the format of the image at `path`; None for one that is none of qemu's own. OSError."""
    with open(path, "rb") as file:
        return format_of_head(file.read(HEAD))


@contextlib.asynccontextmanager
async def qemu_image(path: str, image_format: str) -> AsyncIterator[BlockDevice]:
    """The image as a device, read-only. Its qemu-nbd ends with the context, or with this process, however that ends.

    UmlError if there is no qemu-nbd, or with its words if it does not take the image.
    """
    with Keeper() as keeper:
        socket = keeper.directory / "nbd"
        process = _start(keeper, path, image_format, socket)
        uri = f"///?socket={quote(str(socket))}"
        with process.stderr or contextlib.nullcontext():
            await _wait_for(socket, process, path)
            device = await unix.open(uri, OpenOptions(read_only=True))
            try:
                yield device
            finally:
                with trio.CancelScope(shield=True):
                    await device.close()


def _start(keeper: Keeper, path: str, image_format: str, socket: Path) -> subprocess.Popen[bytes]:
    import shutil

    program = shutil.which("qemu-nbd")
    if program is None:
        raise UmlError(f"{path}: a {image_format} image, which takes qemu-nbd to read", INSTALL)
    words = [program, "--read-only", "--persistent", "--shared=4", f"--socket={socket}", f"--format={image_format}"]
    # A name that begins with a word and a colon would be a protocol.
    return keeper.spawn([*words, str(Path(path).absolute())], output=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"})


async def _wait_for(socket: Path, process: subprocess.Popen[bytes], path: str) -> None:
    with trio.move_on_after(START_SECONDS):
        while process.poll() is None:
            with contextlib.suppress(OSError):
                (await trio.open_unix_socket(str(socket))).socket.close()
                return
            await trio.sleep(_RETRY_SECONDS)
    words = ""
    if process.poll() is not None and process.stderr is not None:
        words = process.stderr.read(4096).decode(errors="replace").strip().replace("qemu-nbd: ", "")
    raise UmlError(f"{path}: qemu-nbd cannot read it: {words or 'it does not start'}", "see 'qemu-img check'")
