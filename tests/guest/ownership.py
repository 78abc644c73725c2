"""What a filesystem with true ownership promises, done as root on the directory that is named: runs inside a guest,
on a humfs of the named size, with access control lists.

Nothing is imported but the standard library. Each function is one claim; the names of those that fail are printed.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence

ALICE, BOB, TEAM = 1000, 1001, 777
CAP_DAC_OVERRIDE = 1 << 1
CAPABILITY = struct.pack("<5I", 0x0200_0001, CAP_DAC_OVERRIDE, 0, 0, 0)
"""security.capability: revision 2, effective."""
ACL = struct.Struct("<HHI")
ACL_VERSION = struct.pack("<I", 2)
NOBODY_IN_PARTICULAR = 0xFFFF_FFFF
PAGE = 4096


def number_of(function: Callable[..., object], *arguments: object) -> int:
    """The errno that a call fails with, 0 if it does not."""
    try:
        function(*arguments)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def as_user(uid: int, function: Callable[..., object], *arguments: object, groups: Sequence[int] = ()) -> int:
    """`number_of`, in a process of that user."""
    child = os.fork()
    if child == 0:
        os.setgroups(groups)
        os.setgid(uid)
        os.setuid(uid)
        os._exit(number_of(function, *arguments))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def write(name: str, data: bytes = b"data") -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def make(name: str, mode: int, uid: int = 0, gid: int = 0) -> None:
    write(name)
    os.chown(name, uid, gid)
    os.chmod(name, mode)


def permissions(name: str) -> int:
    return stat.S_IMODE(os.stat(name).st_mode)


def run_as(uid: int, *words: str) -> str:
    return subprocess.run(words, user=uid, group=uid, extra_groups=[], capture_output=True, text=True).stdout


def a_write_by_its_owner_drops_set_id_bits() -> None:
    make("file", 0o6775, ALICE, ALICE)
    assert as_user(ALICE, write, "file") == 0
    assert permissions("file") == 0o775
    make("truncated", 0o4755, ALICE, ALICE)
    assert as_user(ALICE, os.truncate, "truncated", 1) == 0
    assert permissions("truncated") == 0o755


def chown_drops_set_id_bits_but_mandatory_locking() -> None:
    make("file", 0o6755)
    os.chown("file", ALICE, ALICE)
    assert permissions("file") == 0o755
    make("locking", 0o2644)
    os.chown("locking", 0, TEAM)
    assert permissions("locking") == 0o2644


def chmod_by_a_stranger_to_the_group_drops_its_bit() -> None:
    make("file", 0o755, ALICE, TEAM)
    assert as_user(ALICE, os.chmod, "file", 0o2755) == 0
    assert permissions("file") == 0o755
    assert as_user(ALICE, os.chmod, "file", 0o2755, groups=[TEAM]) == 0
    assert permissions("file") == 0o2755


def a_setuid_program_runs_as_its_owner() -> None:
    shutil.copy("/usr/bin/id", "id")
    os.chown("id", 4321, 0)
    os.chmod("id", 0o4755)
    assert run_as(ALICE, "./id", "-u") == "4321\n"


def a_program_with_capabilities_has_them_until_it_is_written_to() -> None:
    make("secret", 0o600)
    shutil.copy("/bin/cat", "cat")
    os.chmod("cat", 0o755)
    assert run_as(ALICE, "./cat", "secret") == ""
    os.setxattr("cat", "security.capability", CAPABILITY)
    assert run_as(ALICE, "./cat", "secret") == "data"
    with open("cat", "ab") as file:
        file.write(b"\0")
    assert number_of(os.getxattr, "cat", "security.capability") == errno.ENODATA
    assert run_as(ALICE, "./cat", "secret") == ""


def in_a_sticky_directory_each_removes_their_own() -> None:
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    assert as_user(ALICE, write, "sticky/file") == 0
    assert as_user(BOB, os.unlink, "sticky/file") == errno.EPERM
    assert as_user(BOB, os.rename, "sticky/file", "sticky/other") == errno.EPERM
    assert as_user(ALICE, os.unlink, "sticky/file") == 0


def supplementary_groups_count() -> None:
    os.mkdir("team")
    os.chown("team", 0, TEAM)
    os.chmod("team", 0o2770)
    assert as_user(ALICE, write, "team/file") == errno.EACCES
    assert as_user(ALICE, write, "team/file", groups=[5, TEAM]) == 0
    found = os.stat("team/file")
    assert (found.st_uid, found.st_gid) == (ALICE, TEAM)
    assert as_user(ALICE, os.mkdir, "team/below", groups=[TEAM]) == 0
    assert permissions("team/below") & stat.S_ISGID


def extended_attributes_keep_to_their_namespaces() -> None:
    make("file", 0o666)
    for name in ("user.a", "trusted.a", "security.a"):
        os.setxattr("file", name, name.encode())
    assert set(os.listxattr("file")) == {"user.a", "trusted.a", "security.a"}
    assert as_user(ALICE, os.setxattr, "file", "user.b", b"") == 0
    assert as_user(ALICE, os.setxattr, "file", "trusted.b", b"") == errno.EPERM
    assert as_user(ALICE, os.getxattr, "file", "trusted.a") == errno.ENODATA
    assert number_of(os.setxattr, "file", "other.a", b"") == errno.EOPNOTSUPP
    os.removexattr("file", "user.a")
    assert number_of(os.getxattr, "file", "user.a") == errno.ENODATA


def access_list(named: int) -> bytes:
    """For ALICE by name, nobody else."""
    entries = [(1, 6, NOBODY_IN_PARTICULAR), (2, named, ALICE), (4, 0, NOBODY_IN_PARTICULAR)]
    entries += [(0x10, 7, NOBODY_IN_PARTICULAR), (0x20, 0, NOBODY_IN_PARTICULAR)]
    return ACL_VERSION + b"".join(ACL.pack(*entry) for entry in entries)


def access_control_lists_let_in_whom_they_name() -> None:
    make("file", 0o600)
    os.setxattr("file", "system.posix_acl_access", access_list(4))
    assert as_user(ALICE, os.open, "file", os.O_RDONLY) == 0
    assert as_user(ALICE, os.open, "file", os.O_WRONLY) == errno.EACCES
    assert as_user(BOB, os.open, "file", os.O_RDONLY) == errno.EACCES
    os.mkdir("directory", 0o700)
    os.setxattr("directory", "system.posix_acl_default", access_list(6))
    write("directory/file")
    assert os.getxattr("directory/file", "system.posix_acl_access")


def nodes_of_every_type() -> None:
    for kind, rdev in ((stat.S_IFCHR, os.makedev(1, 5)), (stat.S_IFBLK, os.makedev(259, 70_000)), (stat.S_IFIFO, 0)):
        os.mknod(f"node-{kind}", kind | 0o640, rdev)
        found = os.stat(f"node-{kind}")
        assert (stat.S_IFMT(found.st_mode), permissions(f"node-{kind}"), found.st_rdev) == (kind, 0o640, rdev)
    fd = os.open(f"node-{stat.S_IFCHR}", os.O_RDONLY)
    assert os.read(fd, 3) == bytes(3)
    os.close(fd)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        client.connect("socket")
    assert as_user(ALICE, os.mknod, "mine", stat.S_IFCHR) in (errno.EPERM, errno.EACCES)


def times_to_the_nanosecond() -> None:
    write("file")
    os.utime("file", ns=(1_000_000_000_000_000_001, 2_000_000_000_123_456_789))
    found = os.stat("file")
    assert (found.st_atime_ns, found.st_mtime_ns) == (1_000_000_000_000_000_001, 2_000_000_000_123_456_789)


def a_directory_counts_those_in_it() -> None:
    for name in ("a", "a/b", "a/c"):
        os.mkdir(name)
    write("a/file")
    assert os.stat("a").st_nlink == 4
    os.rename("a/c", "c")
    assert os.stat("a").st_nlink == 3
    os.rmdir("a/b")
    assert os.stat("a").st_nlink == 2


def a_removed_file_lives_on_while_it_is_open() -> None:
    with open("file", "w+b") as file, open("replaced", "w+b") as replaced:
        os.unlink("file")
        write("new")
        os.rename("new", "replaced")
        for one in (file, replaced):
            one.write(b"still here")
            one.flush()
            os.fsync(one.fileno())
            assert os.pread(one.fileno(), 20, 0) == b"still here"
            assert os.fstat(one.fileno()).st_nlink == 0


def the_size_is_the_limit() -> None:
    found = os.statvfs(".")
    assert found.f_blocks * found.f_frsize == SIZE
    free = found.f_bfree * PAGE
    fd = os.open("file", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, free)
    # What was removed before may give its space back only now.
    while late := os.statvfs(".").f_bfree:
        free += late * PAGE
        os.posix_fallocate(fd, 0, free)
    assert os.pwrite(fd, b"fits", 0) == 4
    os.fsync(fd)
    assert number_of(os.posix_fallocate, fd, free, PAGE) == errno.ENOSPC
    other = os.open("other", os.O_RDWR | os.O_CREAT | os.O_SYNC)
    assert number_of(os.write, other, b"x") == errno.ENOSPC
    os.close(other)
    assert number_of(os.mkdir, "directory") == errno.ENOSPC
    os.ftruncate(fd, free - PAGE)
    os.mkdir("directory")
    os.close(fd)
    os.unlink("file")
    os.rmdir("directory")
    while os.statvfs(".").f_bfree * PAGE != free:
        time.sleep(0.01)  # the guest's kernel gives an inode up some time after its last use


def df_shows_it() -> None:
    size, used = subprocess.run(
        ["df", "-B1", "--output=size,used", "."], capture_output=True, text=True
    ).stdout.split()[-2:]
    found = os.statvfs(".")
    assert (int(size), int(used)) == (SIZE, SIZE - found.f_bfree * PAGE)


CLAIMS = (
    a_write_by_its_owner_drops_set_id_bits,
    chown_drops_set_id_bits_but_mandatory_locking,
    chmod_by_a_stranger_to_the_group_drops_its_bit,
    a_setuid_program_runs_as_its_owner,
    a_program_with_capabilities_has_them_until_it_is_written_to,
    in_a_sticky_directory_each_removes_their_own,
    supplementary_groups_count,
    extended_attributes_keep_to_their_namespaces,
    access_control_lists_let_in_whom_they_name,
    nodes_of_every_type,
    times_to_the_nanosecond,
    a_directory_counts_those_in_it,
    a_removed_file_lives_on_while_it_is_open,
    the_size_is_the_limit,
    df_shows_it,
)
SIZE = 0


def main(directory: str, size: str) -> None:
    global SIZE
    SIZE = int(size)
    os.umask(0o022)
    for claim in CLAIMS:
        place = os.path.join(directory, claim.__name__)
        os.mkdir(place)
        os.chdir(place)
        try:
            claim()
        except Exception:
            print(f"broken: {claim.__name__}")
            traceback.print_exc()
        else:
            print(f"holds: {claim.__name__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
