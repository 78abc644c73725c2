"""Names: lookup, creation, links, renames, removal, and the errno of each failure."""

from __future__ import annotations

import errno
import os
import stat

from tests.contract.subject import Subject, check, failing
from umlfs.filesystem import NAME_MAX, ROOT

NOREPLACE = 1
EXCHANGE = 2
_LONG = b"n" * (NAME_MAX + 1)


@check
async def root_is_a_directory(s: Subject) -> None:
    attr = await s.attr(ROOT)
    assert stat.S_ISDIR(attr.mode)
    assert attr.nlink >= 1
    assert await s.names() == []


@check
async def lookup_of_a_missing_name(s: Subject) -> None:
    assert await s.find(ROOT, b"missing") is None
    ino = await s.file(ROOT, b"missing")
    assert (await s.lookup(ROOT, b"missing")).ino == ino


@check
async def lookup_finds_what_was_created(s: Subject) -> None:
    made = {
        b"file": await s.file(ROOT, b"file"),
        b"directory": await s.mkdir(ROOT, b"directory"),
        b"symlink": await s.symlink(ROOT, b"symlink", b"to"),
        b"fifo": (await s.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o644)).ino,
    }
    assert len(set(made.values())) == 4
    for name, ino in made.items():
        entry = await s.lookup(ROOT, name)
        assert entry.ino == ino
        assert entry.attr == await s.attr(ino)


@check
async def names_hold_every_byte(s: Subject) -> None:
    names = [bytes([byte]) for byte in range(1, 256) if byte not in b"/."]
    names += [b".hidden", b"...", b". ", b"\xff\xfe", "åß漢\u200b".encode(), b"-rf", b"a\nb", b"  ", b"x" * NAME_MAX]
    for name in names:
        await s.file(ROOT, name, name)
    assert await s.names() == sorted(names)
    for name in names:
        assert await s.read((await s.lookup(ROOT, name)).ino) == name
    for name in names:
        await s.fs.unlink(ROOT, name)
    assert await s.names() == []


@check
async def names_tell_case_and_normal_forms_apart(s: Subject) -> None:
    names = [b"a", b"A", "é".encode(), "e\u0301".encode()]
    for name in names:
        await s.file(ROOT, name, name)
    for name in names:
        assert await s.read((await s.lookup(ROOT, name)).ino) == name


@check
async def a_name_too_long(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    with failing(errno.ENAMETOOLONG):
        await s.fs.lookup(ROOT, _LONG)
    with failing(errno.ENAMETOOLONG):
        await s.file(ROOT, _LONG)
    with failing(errno.ENAMETOOLONG):
        await s.mkdir(ROOT, _LONG)
    with failing(errno.ENAMETOOLONG):
        await s.mknod(ROOT, _LONG, stat.S_IFIFO | 0o644)
    with failing(errno.ENAMETOOLONG):
        await s.symlink(ROOT, _LONG, b"to")
    with failing(errno.ENAMETOOLONG):
        await s.link(ino, ROOT, _LONG)
    with failing(errno.ENAMETOOLONG):
        await s.fs.rename(ROOT, b"file", ROOT, _LONG)
    with failing(errno.ENAMETOOLONG):
        await s.fs.unlink(ROOT, _LONG)
    with failing(errno.ENAMETOOLONG):
        await s.fs.rmdir(ROOT, _LONG)
    assert await s.names() == [b"file"]


@check
async def the_longest_name_works_everywhere(s: Subject) -> None:
    one, other = b"1" * NAME_MAX, b"2" * NAME_MAX
    directory = await s.mkdir(ROOT, one)
    ino = await s.file(directory, other, b"x")
    await s.fs.rename(directory, other, directory, one)
    await s.link(ino, directory, other)
    assert await s.names(directory) == [one, other]
    await s.fs.unlink(directory, one)
    await s.fs.unlink(directory, other)
    await s.fs.rmdir(ROOT, one)


@check
async def a_name_that_is_taken(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    await s.mkdir(ROOT, b"directory")
    await s.symlink(ROOT, b"dangling", b"nowhere")
    for name in (b"file", b"directory", b"dangling"):
        with failing(errno.EEXIST):
            await s.file(ROOT, name)
        with failing(errno.EEXIST):
            await s.mkdir(ROOT, name)
        with failing(errno.EEXIST):
            await s.mknod(ROOT, name, stat.S_IFIFO | 0o644)
        with failing(errno.EEXIST):
            await s.symlink(ROOT, name, b"to")
        with failing(errno.EEXIST):
            await s.link(ino, ROOT, name)
    assert await s.find(ROOT, b"nowhere") is None


@check
async def a_missing_name(s: Subject) -> None:
    with failing(errno.ENOENT):
        await s.fs.unlink(ROOT, b"missing")
    with failing(errno.ENOENT):
        await s.fs.rmdir(ROOT, b"missing")
    with failing(errno.ENOENT):
        await s.fs.rename(ROOT, b"missing", ROOT, b"other")


@check
async def a_file_is_no_directory(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    with failing(errno.ENOTDIR):
        await s.fs.lookup(ino, b"below")
    with failing(errno.ENOTDIR):
        await s.file(ino, b"below")
    with failing(errno.ENOTDIR):
        await s.mkdir(ino, b"below")
    with failing(errno.ENOTDIR):
        await s.fs.unlink(ino, b"below")
    with failing(errno.ENOTDIR):
        await s.fs.rename(ROOT, b"file", ino, b"below")
    with failing(errno.ENOTDIR):
        await s.fs.rmdir(ROOT, b"file")


@check
async def a_directory_is_no_file(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    with failing(errno.EISDIR, errno.EPERM):
        await s.fs.unlink(ROOT, b"directory")
    with failing(errno.EPERM):
        await s.link(directory, ROOT, b"second")
    with failing(errno.EISDIR):
        await s.write(directory, b"x")
    with failing(errno.EINVAL):
        await s.fs.readlink(directory)


@check
async def a_directory_that_is_not_empty(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    await s.file(directory, b"file")
    with failing(errno.ENOTEMPTY, errno.EEXIST):
        await s.fs.rmdir(ROOT, b"directory")
    await s.fs.unlink(directory, b"file")
    await s.fs.rmdir(ROOT, b"directory")
    assert await s.find(ROOT, b"directory") is None


@check
async def directories_count_their_children(s: Subject) -> None:
    before = (await s.attr(ROOT)).nlink
    await s.mkdir(ROOT, b"directory")
    after = (await s.attr(ROOT)).nlink
    assert after in (before, before + 1)  # some filesystems do not count and say 1
    await s.fs.rmdir(ROOT, b"directory")
    assert (await s.attr(ROOT)).nlink == before


@check
async def changes_of_names_touch_the_directory(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")

    async def stamp() -> int:
        return (await s.attr(directory)).mtime_ns

    before = await stamp()
    await s.file(directory, b"file")
    await s.fs.rename(directory, b"file", directory, b"renamed")
    await s.fs.unlink(directory, b"renamed")
    assert await stamp() >= before


# Symlinks -------------------------------------------------------------------------------------


@check
async def symlinks_hold_any_target(s: Subject) -> None:
    longest = (b"x" * 200 + b"/") * 20
    targets = [b"a", b"/", b"../..", b"/etc/passwd", b"\xff\n", longest[:59], longest[:60], longest[:61]]
    targets.append(longest.ljust(s.features.symlink_max, b"y")[: s.features.symlink_max])
    for number, target in enumerate(targets):
        ino = await s.symlink(ROOT, b"%d" % number, target)
        assert await s.fs.readlink(ino) == target
        attr = await s.attr(ino)
        assert stat.S_ISLNK(attr.mode)
        assert attr.size == len(target)


@check
async def symlinks_are_never_followed(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    await s.file(directory, b"file", b"x")
    link = await s.symlink(ROOT, b"link", b"directory")
    with failing(errno.ENOTDIR, errno.ELOOP):
        await s.fs.lookup(link, b"file")
    with failing(errno.EINVAL, errno.ELOOP):
        await s.read(link)
    with failing(errno.ENOTDIR):
        await s.fs.rmdir(ROOT, b"link")
    await s.fs.unlink(ROOT, b"link")
    assert await s.names(directory) == [b"file"]


@check
async def readlink_of_a_file(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    with failing(errno.EINVAL):
        await s.fs.readlink(ino)


# Hard links -----------------------------------------------------------------------------------


@check
async def hard_links_are_one_inode(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    ino = await s.file(ROOT, b"one", b"contents")
    entry = await s.link(ino, directory, b"two")
    assert entry.ino == ino
    assert entry.attr.nlink == 2
    assert (await s.lookup(ROOT, b"one")).attr.ino == (await s.lookup(directory, b"two")).attr.ino
    await s.write(ino, b"CON")
    await s.fs.unlink(ROOT, b"one")
    assert (await s.attr(ino)).nlink == 1
    assert await s.read((await s.lookup(directory, b"two")).ino) == b"CONtents"


@check
async def hard_links_lose_their_names_in_any_order(s: Subject) -> None:
    ino = await s.file(ROOT, b"0", b"contents")
    for number in range(1, 12):
        await s.link(ino, ROOT, b"%d" % number)
    for number in (3, 0, 11, 7):
        await s.fs.unlink(ROOT, b"%d" % number)
        assert await s.read(ino) == b"contents"
    await s.fs.rename(ROOT, b"5", ROOT, b"renamed")
    assert (await s.attr(ino)).nlink == 8
    assert (await s.lookup(ROOT, b"renamed")).ino == ino


@check
async def symlinks_and_fifos_have_hard_links_too(s: Subject) -> None:
    link = await s.symlink(ROOT, b"link", b"target")
    assert (await s.link(link, ROOT, b"second")).attr.nlink == 2
    assert await s.fs.readlink((await s.lookup(ROOT, b"second")).ino) == b"target"
    fifo = (await s.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o600)).ino
    assert (await s.link(fifo, ROOT, b"fifo2")).attr.nlink == 2


# Renames --------------------------------------------------------------------------------------


@check
async def rename_keeps_the_inode(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    ino = await s.file(ROOT, b"old", b"x")
    await s.fs.rename(ROOT, b"old", directory, b"new")
    assert await s.find(ROOT, b"old") is None
    assert (await s.lookup(directory, b"new")).ino == ino
    assert await s.read(ino) == b"x"


@check
async def rename_to_itself(s: Subject) -> None:
    ino = await s.file(ROOT, b"one", b"x")
    await s.fs.rename(ROOT, b"one", ROOT, b"one")
    await s.link(ino, ROOT, b"two")
    await s.fs.rename(ROOT, b"one", ROOT, b"two")
    assert await s.names() == [b"one", b"two"]  # two names of one file: nothing happens
    assert await s.read(ino) == b"x"


@check
async def rename_of_a_directory_takes_its_subtree(s: Subject) -> None:
    one = await s.mkdir(ROOT, b"one")
    two = await s.mkdir(ROOT, b"two")
    below = await s.mkdir(one, b"below")
    ino = await s.file(below, b"file", b"x")
    await s.fs.rename(ROOT, b"one", two, b"moved")
    assert await s.read(ino) == b"x"
    assert (await s.lookup(below, b"file")).ino == ino
    assert (await s.lookup(two, b"moved")).ino == one
    await s.fs.rename(below, b"file", ROOT, b"out")
    assert await s.names(below) == []


@check
async def rename_replaces(s: Subject) -> None:
    ino = await s.file(ROOT, b"new", b"new")
    old = await s.file(ROOT, b"old", b"old")
    await s.fs.rename(ROOT, b"new", ROOT, b"old")
    assert (await s.lookup(ROOT, b"old")).ino == ino
    assert (await s.attr(old)).nlink == 0
    one = await s.mkdir(ROOT, b"one")
    await s.mkdir(ROOT, b"two")
    await s.file(one, b"file")
    await s.fs.rename(ROOT, b"one", ROOT, b"two")
    assert (await s.lookup(ROOT, b"two")).ino == one
    assert await s.names(one) == [b"file"]


@check
async def rename_refuses(s: Subject) -> None:
    full = await s.mkdir(ROOT, b"full")
    empty = await s.mkdir(ROOT, b"empty")
    await s.file(full, b"inside")
    await s.file(ROOT, b"file")
    with failing(errno.ENOTEMPTY, errno.EEXIST):
        await s.fs.rename(ROOT, b"empty", ROOT, b"full")
    with failing(errno.EISDIR):
        await s.fs.rename(ROOT, b"file", ROOT, b"empty")
    with failing(errno.ENOTDIR):
        await s.fs.rename(ROOT, b"empty", ROOT, b"file")
    below = await s.mkdir(empty, b"below")
    with failing(errno.EINVAL):
        await s.fs.rename(ROOT, b"empty", empty, b"itself")
    with failing(errno.EINVAL):
        await s.fs.rename(ROOT, b"empty", below, b"itself")
    with failing(errno.ENOTEMPTY, errno.EEXIST, errno.EINVAL):
        await s.fs.rename(empty, b"below", ROOT, b"empty")
    assert await s.names() == [b"empty", b"file", b"full"]


@check
async def rename_with_flags(s: Subject) -> None:
    one = await s.file(ROOT, b"one", b"1")
    directory = await s.mkdir(ROOT, b"directory")
    two = await s.file(directory, b"two", b"2")
    if not s.features.rename_flags:
        with failing(errno.EINVAL, errno.ENOSYS):
            await s.fs.rename(ROOT, b"one", directory, b"two", EXCHANGE)
        return
    with failing(errno.EEXIST):
        await s.fs.rename(ROOT, b"one", directory, b"two", NOREPLACE)
    await s.fs.rename(ROOT, b"one", directory, b"free", NOREPLACE)
    await s.fs.rename(directory, b"free", ROOT, b"one", NOREPLACE)
    await s.fs.rename(ROOT, b"one", directory, b"two", EXCHANGE)
    assert (await s.lookup(ROOT, b"one")).ino == two
    assert (await s.lookup(directory, b"two")).ino == one
    assert await s.read(one) == b"1"
    assert await s.read(two) == b"2"
    with failing(errno.ENOENT):
        await s.fs.rename(ROOT, b"one", ROOT, b"missing", EXCHANGE)
    with failing(errno.EINVAL):
        await s.fs.rename(ROOT, b"one", directory, b"two", EXCHANGE | NOREPLACE)


@check
async def exchange_of_a_file_and_a_directory(s: Subject) -> None:
    if not s.features.rename_flags:
        return
    file = await s.file(ROOT, b"one", b"x")
    directory = await s.mkdir(ROOT, b"two")
    inside = await s.file(directory, b"inside", b"y")
    await s.fs.rename(ROOT, b"one", ROOT, b"two", EXCHANGE)
    assert (await s.lookup(ROOT, b"two")).ino == file
    assert (await s.lookup(ROOT, b"one")).ino == directory
    assert await s.read(inside) == b"y"


# Kinds ----------------------------------------------------------------------------------------


@check
async def mknod_makes_every_kind(s: Subject) -> None:
    for name, kind in ((b"fifo", stat.S_IFIFO), (b"socket", stat.S_IFSOCK), (b"file", stat.S_IFREG)):
        entry = await s.mknod(ROOT, name, kind | 0o640)
        assert entry.attr.mode == kind | 0o640
    for name, kind in ((b"character", stat.S_IFCHR), (b"block", stat.S_IFBLK)):
        device = os.makedev(254, 70_000)
        if not s.features.devices:
            with failing(errno.EPERM):
                await s.mknod(ROOT, name, kind | 0o600, device)
            continue
        entry = await s.mknod(ROOT, name, kind | 0o600, device)
        assert entry.attr.mode == kind | 0o600
        assert entry.attr.rdev == device


@check
async def devices_and_fifos_are_never_opened(s: Subject) -> None:
    inos = [(await s.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o600)).ino]
    if s.features.devices:
        inos.append((await s.mknod(ROOT, b"null", stat.S_IFCHR | 0o600, os.makedev(1, 3))).ino)
    for ino in inos:
        with failing(errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENXIO):
            await s.read(ino)
        with failing(errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENXIO):
            await s.write(ino, b"x")


# Forgetting -----------------------------------------------------------------------------------


@check
async def forget_and_look_up_again(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    ino = await s.file(directory, b"file", b"x")
    await s.lookup(directory, b"file")
    s.fs.forget(ino, 1)
    assert await s.read(ino) == b"x"  # one lookup is left
    s.lookups[ino] -= 1
    s.forget_all()
    directory = (await s.lookup(ROOT, b"directory")).ino
    assert await s.read((await s.lookup(directory, b"file")).ino) == b"x"


@check
async def forget_of_the_unknown(s: Subject) -> None:
    s.fs.forget(1 << 60, 1)
    s.fs.forget(ROOT, 1)
    ino = await s.file(ROOT, b"file")
    s.fs.forget(ino, 1 << 40)
    s.lookups.clear()
    assert await s.find(ROOT, b"file") is not None


@check
async def an_unknown_inode_is_stale(s: Subject) -> None:
    for ino in (0, 1 << 60):
        with failing(errno.ESTALE, errno.ENOENT):
            await s.attr(ino)
        with failing(errno.ESTALE, errno.ENOENT):
            await s.fs.lookup(ino, b"name")
        with failing(errno.ESTALE, errno.ENOENT):
            await s.read(ino)


@check
async def a_child_outlives_the_lookup_of_its_parent(s: Subject) -> None:
    directory = await s.mkdir(ROOT, b"directory")
    ino = await s.file(directory, b"file", b"x")
    s.fs.forget(directory, s.lookups.pop(directory))
    assert await s.read(ino) == b"x"
    assert (await s.lookup(ROOT, b"directory")).attr.mode == stat.S_IFDIR | 0o755


@check
async def a_name_used_again_is_another_inode(s: Subject) -> None:
    for kind in range(20):
        ino = await s.file(ROOT, b"name", b"%d" % kind)
        await s.fs.unlink(ROOT, b"name")
        directory = await s.mkdir(ROOT, b"name")
        assert directory != ino
        await s.fs.rmdir(ROOT, b"name")
        assert (await s.attr(ino)).nlink == 0
