"""How fast a guest's output passes: through channels of ours, and through the kernel's own `pts` channel.

python -m tests.benchmarks.consoles [ROUNDS]

One guest, a line for each channel, 16 MB a time to a reader in a process of its own. The kernel's own channel stops for
ever when its pty was full at the wrong moment; here its reader sends the signal that the kernel missed, when nothing
came for 10 ms.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

import trio

from runtime.consoles.hostend import HostEnd
from runtime.consoles.lines import Consoles
from runtime.consoles.spec import BOOT_CONSOLE, Line, parse_all
from runtime.guest.initramfs import build, find_busybox
from runtime.kernels.kernel import find_kernel
from runtime.process.keeper import Keeper
from tests.benchmarks.ratio import measure, table

SIZE: Final = 16 << 20
INIT: Final = f"""#!/bin/busybox sh
/bin/busybox mkdir -p /bin
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
for line in tty1 tty2 tty3 tty4; do
    (
        exec </dev/$line >/dev/$line
        stty raw -echo
        echo $line is open >/dev/console
        while read -r word; do dd if=/dev/zero bs=4096 count={SIZE // 4096} 2>/dev/null; done
    ) &
done
wait
"""
READER: Final = """\
import os, select, signal, socket, sys
kind, place, size, kernel = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if kind == "port":
    stream = socket.create_connection(("127.0.0.1", int(place)))
elif kind == "unix":
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(place)
fd = os.open(place, os.O_RDWR | os.O_NOCTTY) if kind == "pts" else stream.fileno()
poll = select.poll()
poll.register(fd, select.POLLIN)
os.write(fd, b"go\\n")
while size > 0:
    if poll.poll(10):
        size -= os.read(fd, 65536).count(0)
    elif kernel:
        os.kill(kernel, signal.SIGIO)
"""


def read(description: str, kernel: int = 0) -> None:
    """Ask for `SIZE` bytes and read them; `kernel` is a process to be reminded."""
    kind, _, place = description.partition(":")
    subprocess.run([sys.executable, "-I", "-c", READER, kind, place, str(SIZE), str(kernel)], check=True, timeout=300)


async def says(end: HostEnd, text: bytes, count: int = 1) -> bytes:
    """Read until the guest said `text` that often: all that it said."""
    said = b""
    with end.reader() as reader:
        while said.count(text) < count:
            said += await reader.read()
    return said


async def compare(directory: Path, rounds: int) -> None:
    """Print the table."""
    kernel = find_kernel()
    image = build(kernel, (), INIT.encode(), find_busybox(), scratch=directory)
    words = ["con2=port:0", f"con3=unix:{directory}/socket", "con4=pts"]
    with Keeper(directory) as keeper:
        async with Consoles(parse_all(words)) as consoles:
            own = ["con1=pts", "mem=64M", f"uml_dir={directory}/", f"initrd={image}"]
            command = [str(kernel.path), *consoles.arguments, *own]
            process = keeper.spawn(command, output=subprocess.DEVNULL, pass_fds=consoles.inherited)
            said = await says(consoles.end(BOOT_CONSOLE), b"is open", 4)
            device = said.partition(b"Virtual console 1 assigned device '")[2].partition(b"'")[0].decode()
            held = os.open(device, os.O_RDWR | os.O_NOCTTY)  # the kernel hangs up with the last that lets go
            runs = {"the kernel's pts": partial(read, f"pts:{device}", process.pid)}
            for line in ("con2", "con3", "con4"):
                description = consoles.describe(Line.parse(line))
                runs[f"ours, {description.partition(':')[0]}"] = partial(read, description)
            medians = await trio.to_thread.run_sync(measure, runs, rounds)
            print(table(medians, "the kernel's pts"))
            os.close(held)
            keeper.close()


def main(rounds: int = 7) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        trio.run(compare, Path(directory), rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
