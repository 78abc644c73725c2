"""What the calls of the table in docs/mounting.md do in a directory of ours: `PROGRAM`, and what it says of each."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tests import needs

PROGRAM: Final = r"""
import ctypes, errno, mmap, os, struct, sys

os.chdir(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)

def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result

def temporary():
    os.close(os.open(".", os.O_TMPFILE | os.O_RDWR))

def access_list():
    entries = [(1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 4, -1), (32, 4, -1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    os.setxattr("file", "system.posix_acl_access", packed)

def no_access_list():
    os.getxattr("listed", "system.posix_acl_access")

def mask():
    return oct(os.stat("listed").st_mode & 0o777)

def allocated():
    with open("file", "r+b") as file:
        called(libc.fallocate(file.fileno(), 1, ctypes.c_long(0), ctypes.c_long(1 << 20)))

def hole():
    with open("sparse", "rb") as file:
        return os.lseek(file.fileno(), 0, os.SEEK_DATA) > 0

def copied():
    with open("file", "rb") as file, open("copy", "wb") as copy:
        return os.copy_file_range(file.fileno(), copy.fileno(), 7)

def shared_mapping():
    with open("file", "r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        return len(mapping) > 0

def synced():
    called(libc.syncfs(os.open(".", os.O_RDONLY)))

def exclusive():
    os.setxattr("file", "user.one", b"1", os.XATTR_CREATE)
    os.setxattr("file", "user.one", b"1", os.XATTR_CREATE)

for call in (temporary, access_list, no_access_list, mask, allocated, hole, copied, shared_mapping, synced, exclusive):
    try:
        print(call.__name__, call())
    except OSError as error:
        print(call.__name__, errno.errorcode[error.errno])
"""


def prepare(directory: Path) -> None:
    """Make what the program looks at."""
    (directory / "file").write_bytes(b"content")
    with (directory / "sparse").open("wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"x")
    (directory / "listed").touch(0o640)
    subprocess.run([needs.program("setfacl"), "-m", "u:1234:rw", directory / "listed"], check=True)


SAYS: Final = {
    "temporary": "ENOTSUP",
    "access_list": "ENOTSUP",
    "no_access_list": "ENOTSUP",
    "mask": "0o660",
    "allocated": "None",
    "hole": "True",
    "copied": "7",
    "shared_mapping": "True",
    "synced": "None",
    "exclusive": "EEXIST",
}
"""What it says of each call, but for what a setting has in its place."""


def said(output: str) -> dict[str, str]:
    """What it says, of `SAYS`."""
    return dict(line.split(maxsplit=1) for line in output.splitlines())
