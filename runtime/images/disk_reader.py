"""The files of a disk as a tar archive, by a guest that a process of its own runs.

So a guest reads on one processor, with its devices, while what is read is written somewhere on another one. Both in
one process would take turns in the interpreter, and on the processor that a process shares with its kernel.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import trio

from runtime.host import own
from runtime.images.formats import Format, Image
from umlfs.block import BlockDevice
from umlfs.errors import UmlError

END_SECONDS: Final = 15.0
"""How long the process may take to end its guest."""
_INPUT: Final = 0
_OUTPUT: Final = 1
_BY_NUMBER: Final = "/proc/self/fd/"
_SQUASHFS_SUPERBLOCK: Final = 96
_SQUASHFS_ATTRIBUTES: Final = slice(56, 64)


@dataclass(frozen=True, slots=True)
class Packed:
    """What came of it."""

    complete: bool
    """All of it could be read."""
    lines: list[str]
    """What there is to say, as GNU tar has it."""
    has_attributes: bool
    """It is a squashfs with extended attributes, which not every kernel reads."""


async def read_disk(image: Image, fd: int) -> Packed:
    """Have a guest's kernel mount the disk, which stays as it is, and pack it into the pipe `fd`. UmlError."""
    words = [str(image.path), image.format.value, image.inside, image.name]
    inherited = [int(image.path.name)] if str(image.path).startswith(_BY_NUMBER) else []
    with _answer_file() as answer:
        command = own.module(__name__, json.dumps([*words, answer.fileno()]))
        process = await trio.lowlevel.open_process(
            command, stdin=-1, stdout=fd, pass_fds=[answer.fileno(), *inherited], process_group=0
        )
        try:
            await process.wait()
        finally:
            await _end(process)
        answer.seek(0)
        return _of(answer.read(), image)


def _answer_file() -> BinaryIO:
    """One without a name."""
    return cast(BinaryIO, open(os.memfd_create("answer", os.MFD_CLOEXEC), "r+b"))


async def _end(process: trio.Process) -> None:
    """It ends when its input does."""
    with trio.CancelScope(shield=True):
        assert process.stdin is not None
        await process.stdin.aclose()
        with trio.move_on_after(END_SECONDS):
            await process.wait()
        process.kill()
        await process.wait()


def _of(answer: bytes, image: Image) -> Packed:
    """What the process said at its end. UmlError, of its own too."""
    if not answer:
        raise UmlError(f"{image.name}: the process that reads the disk has ended without a word", "try again")
    found: dict[str, Any] = json.loads(answer)
    if "what" in found:
        raise UmlError(found["what"], found["way_out"], status=found["status"], details=found["details"])
    return Packed(found["complete"], found["lines"], found["has_attributes"])


# The process ----------------------------------------------------------------------------------


def main() -> None:
    """Read the disk that the argument describes, to standard output, until standard input ends."""
    from runtime.process import processes

    path, name, inside, shown, answer = json.loads(sys.argv[1])
    image = Image(Path(path), Format(name), inside=inside, shown=shown)
    with processes.for_machines():
        said = trio.run(_answer, image)
    with open(answer, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(said, file)


async def _answer(image: Image) -> dict[str, Any]:
    said = _error(UmlError(f"{image.name}: broken off"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_at_end_of_input, nursery.cancel_scope)
        try:
            said = asdict(await _pack(image))
        except UmlError as error:
            said = _error(error)
        nursery.cancel_scope.cancel()
    return said


def _error(error: UmlError) -> dict[str, Any]:
    return {"what": error.what, "way_out": error.way_out, "status": error.status, "details": error.details}


async def _cancel_at_end_of_input(scope: trio.CancelScope) -> None:
    """Whoever wants the files is gone then."""
    os.set_blocking(_INPUT, False)
    while True:
        await trio.lowlevel.wait_readable(_INPUT)
        if not os.read(_INPUT, 1):
            scope.cancel()
            return


async def _pack(image: Image) -> Packed:
    from runtime.appliance import disk
    from runtime.appliance.packing import pack
    from runtime.appliance.part import choose
    from runtime.tty.streams import Descriptor
    from umlfs.blocks.slice import Slice
    from umlfs.cow.scratch import Scratch
    from umlfs.sources import parse

    sink = Descriptor(_OUTPUT, write=True)
    try:
        async with disk.opened(parse(image.word)) as device:
            assert isinstance(device, BlockDevice)
            part = choose(image.name, await disk.parts(device), None)
            has_attributes = part.kind == "squashfs" and await squashfs_has_attributes(device)
            seen = Scratch(Slice(device, 0, device.size))
            try:
                complete, lines = await pack(seen, part.kind or "", sink, image.inside)
            except UmlError as error:
                raise UmlError(f"{image.name}: {error.what}", error.way_out, details=error.details) from None
            finally:
                with trio.CancelScope(shield=True):
                    await seen.close()
    finally:
        sink.close()
    return Packed(complete, lines, has_attributes)


async def squashfs_has_attributes(device: BlockDevice) -> bool:
    """Whether a squashfs has extended attributes: its superblock says where the table of them is."""
    if device.size < _SQUASHFS_SUPERBLOCK:
        return False  # the kernel says what is wrong with it
    head = bytearray(_SQUASHFS_SUPERBLOCK)
    await device.read_into(0, [memoryview(head)])
    return head[_SQUASHFS_ATTRIBUTES] != b"\xff" * 8


if __name__ == "__main__":
    main()
