"""Memory that guests share by a file of the host: `--iomem`."""

from __future__ import annotations

import mmap
import subprocess
from pathlib import Path

import pytest

from runtime.machine.shared_memory import kernel_words, make_ready
from tests import needs
from tests.machines.household import Household
from umlfs.errors import UmlError

PROGRAM = """
import mmap, os, sys, time
size, me, other = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
fd = os.open("/dev/mmapper", os.O_RDWR)
memory = mmap.mmap(fd, size)
memory[size - 1 - me] = 7  # the last page: a kernel of its own would end here
for turn in range(1, 21):
    memory[me * 4096] = turn
    while memory[other * 4096] < turn:
        time.sleep(0.001)
print(memory[me * 4096], memory[other * 4096])
"""
"""Each side counts in a page of its own, and goes on when the other has come as far."""


@pytest.mark.guest
def test_two_guests_talk_by_a_file(ordinary: Household) -> None:
    uml = ordinary
    needs.program("python3")
    file, pages = uml.home / "ring", 4
    file.write_bytes(bytes(pages * mmap.PAGESIZE))
    file.chmod(0o666)
    command = ["run", "--mem", "64M", "--iomem", f"mmapper={file}", "--", "python3", "-c", PROGRAM]
    sizes = str(pages * mmap.PAGESIZE)
    sides = [
        subprocess.Popen(uml.command(*command, sizes, me, other), stdout=subprocess.PIPE, text=True)
        for me, other in (("0", "1"), ("1", "0"))
    ]
    said = [side.communicate(timeout=120)[0] for side in sides]
    assert said == ["20 20\n", "20 20\n"]
    found = file.read_bytes()
    assert (found[0], found[4096]) == (20, 20)
    assert found[pages * mmap.PAGESIZE - 2 :] == b"\7\7\0"


def test_a_file_that_is_a_whole_number_of_pages_gets_a_byte(tmp_path: Path) -> None:
    file = tmp_path / "ring"
    for size, expected in ((0, 1), (4096, 4097), (4097, 4097), (5000, 5000), (8192, 8193)):
        file.write_bytes(b"x" * size)
        make_ready([f"iomem=mmapper,{file}", "quiet"])
        assert file.stat().st_size == expected
        assert file.read_bytes() == (b"x" * size).ljust(expected, b"\0")
    with pytest.raises(UmlError, match="No such file"):
        make_ready([f"iomem=mmapper,{tmp_path}/none"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["mmapper"], "not of the form NAME=FILE"),
        (["=x"], "not of the form"),
        (["a b={}"], "not of the form"),
        (["mmapper={}none"], "no such file"),
        (["mmapper={} x"], "cannot be given a name"),
        (["mmapper={}", "mmapper={}"], "mmapper is there twice"),
    ],
)
def test_wrong_words(tmp_path: Path, texts: list[str], message: str) -> None:
    file = tmp_path / "ring"
    file.write_bytes(b"x")
    with pytest.raises(UmlError, match=message):
        kernel_words([text.format(file) for text in texts], None)
