"""Our NBD server beside qemu-nbd on the same raw file: `python tests/benchmarks/nbd.py [DIRECTORY]`.

fio's nbd engine plays each load against both servers in turn, several times over; the table has the medians and
their ratio, and the least ratio that is promised. The image is in the host's page cache (in DIRECTORY, the
temporary directory unless told otherwise), so that the servers are compared and not the disk.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from tests import needs
from tests.benchmarks.ratio import rounds

SIZE = 256 << 20
ROUNDS = rounds(5)
SECONDS = 1.0


@dataclass(frozen=True)
class Load:
    name: str
    mode: str
    block: str
    depth: int
    promised: float | None
    """The least ratio to qemu-nbd."""


LOADS = [
    Load("sequential read, 1 MiB", "read", "1M", 1, 1.0),
    Load("sequential read, 1 MiB, depth 4", "read", "1M", 4, 1.0),
    Load("sequential write, 1 MiB", "write", "1M", 1, 1.0),
    Load("sequential write, 1 MiB, depth 4", "write", "1M", 4, 1.0),
    Load("random read, 4 KiB", "randread", "4k", 1, 0.5),
    Load("random read, 4 KiB, depth 16", "randread", "4k", 16, 0.3),
    Load("random write, 4 KiB", "randwrite", "4k", 1, 0.5),
    Load("random write, 4 KiB, depth 16", "randwrite", "4k", 16, 0.3),
    Load("mixed, 4 KiB, depth 16", "randrw", "4k", 16, None),
]


@contextlib.contextmanager
def server(command: list[str], socket: Path) -> Iterator[None]:
    """A server in its own process, listening at `socket`."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while not socket.exists() and process.poll() is None:
                time.sleep(0.01)
            yield
        finally:
            process.terminate()


def ours(image: Path, socket: Path) -> list[str]:
    program = "from runtime.cli import main; main()"
    return [sys.executable, "-c", program, "serve", "nbd", f"raw:{image}", "--socket", str(socket)]


def qemu(image: Path, socket: Path) -> list[str]:
    options = ["-f", "raw", "-t", "-e", "16", "--cache=writeback", "--discard=unmap"]
    return [needs.program("qemu-nbd"), *options, "-k", str(socket), str(image)]


def measure(load: Load, socket: Path) -> float:
    """KiB per second."""
    fio = [needs.program("fio"), "--name=load", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={socket}"]
    fio += [f"--rw={load.mode}", f"--bs={load.block}", f"--iodepth={load.depth}", f"--size={SIZE}"]
    fio += ["--time_based", f"--runtime={SECONDS}", "--output-format=json"]
    printed = subprocess.run(fio, capture_output=True, text=True, check=True).stdout
    job = json.loads(printed[printed.index("{") :])["jobs"][0]
    return float(job["read"]["bw"] + job["write"]["bw"])


def compare(load: Load, image: Path) -> tuple[float, float]:
    """The medians of ours and qemu-nbd's, taken in turn; each server has the image to itself."""
    found: dict[str, list[float]] = {"ours": [], "qemu": []}
    for turn in range(ROUNDS):
        for name, command in (("ours", ours), ("qemu", qemu)):
            socket = image.with_name(f"{name}-{turn}")
            with server(command(image, socket), socket):
                found[name].append(measure(load, socket))
    return median(found["ours"]), median(found["qemu"])


def main() -> None:
    table = Table("load", "ours", "qemu-nbd", "ratio", "promised")
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
        image = Path(directory) / "image"
        with image.open("wb") as file:
            for _ in range(SIZE >> 20):
                file.write(b"\x5a" * (1 << 20))
        for load in LOADS:
            mine, theirs = compare(load, image)
            promised = "" if load.promised is None else f"{load.promised:.1f}"
            rate = [f"{value / 1024:.0f} MiB/s" for value in (mine, theirs)]
            table.add_row(load.name, *rate, f"{mine / theirs:.2f}", promised)
    Console().print(table)


if __name__ == "__main__":
    main()
