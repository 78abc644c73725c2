"""Attributes: modes, owners, times, extended attributes."""

from __future__ import annotations

import errno
import os
import stat
import time

from tests.contract.subject import Subject, check, failing
from umlfs.filesystem import NOW, ROOT, Attr, Caller, SetAttr

XATTR_CREATE, XATTR_REPLACE = 1, 2
_SECOND = 10**9


def _bits(attr: Attr) -> int:
    return stat.S_IMODE(attr.mode)


@check
async def modes_are_as_asked(s: Subject) -> None:
    """Whatever the umask of the process is: the consumer has applied its caller's."""
    for mode in (0o777, 0o666, 0o600, 0o000, 0o755, 0o070):
        ino = await s.file(ROOT, b"file%o" % mode, mode=mode)
        assert _bits(await s.attr(ino)) == mode
        ino = await s.mkdir(ROOT, b"directory%o" % mode, mode)
        assert _bits(await s.attr(ino)) == mode
        entry = await s.mknod(ROOT, b"fifo%o" % mode, stat.S_IFIFO | mode)
        assert _bits(entry.attr) == mode


@check
async def special_bits_at_creation(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", mode=0o4711)
    assert _bits(await s.attr(ino)) == 0o4711
    ino = await s.mkdir(ROOT, b"directory", 0o1777)
    assert _bits(await s.attr(ino)) == 0o1777


@check
async def chmod_keeps_the_type_and_sets_every_bit(s: Subject) -> None:
    for ino, kind in (
        (await s.file(ROOT, b"file"), stat.S_IFREG),
        (await s.mkdir(ROOT, b"directory"), stat.S_IFDIR),
        ((await s.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o600)).ino, stat.S_IFIFO),
    ):
        for mode in (0o0, 0o4755, 0o2755, 0o1777, 0o6711, 0o644, 0o755):
            assert (await s.set(ino, SetAttr(mode=mode))).mode == kind | mode
        assert (await s.attr(ino)).mode == kind | 0o755


@check
async def chmod_touches_only_ctime(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"x")
    before = await s.attr(ino)
    after = await s.set(ino, SetAttr(mode=0o600))
    assert after.ctime_ns >= before.ctime_ns
    assert (after.mtime_ns, after.size, after.nlink) == (before.mtime_ns, before.size, before.nlink)


@check
async def new_files_belong_to_the_caller(s: Subject) -> None:
    inos = [
        await s.file(ROOT, b"file"),
        await s.mkdir(ROOT, b"directory"),
        await s.symlink(ROOT, b"link", b"x"),
        (await s.mknod(ROOT, b"fifo", stat.S_IFIFO | 0o600)).ino,
    ]
    owners = {((await s.attr(ino)).uid, (await s.attr(ino)).gid) for ino in inos}
    if s.features.owners:
        assert owners == {(s.caller.uid, s.caller.gid)}
    else:
        assert len(owners) == 1


@check
async def chown(s: Subject) -> None:
    other = s.features.other
    for ino in (await s.file(ROOT, b"file"), await s.mkdir(ROOT, b"directory"), await s.symlink(ROOT, b"link", b"x")):
        before = await s.attr(ino)
        attr = await s.set(ino, SetAttr(uid=before.uid, gid=before.gid))
        assert (attr.uid, attr.gid) == (before.uid, before.gid)
        if not s.features.owners:
            with failing(errno.EPERM):
                await s.set(ino, SetAttr(uid=before.uid + 1))
            with failing(errno.EPERM):
                await s.set(ino, SetAttr(gid=before.gid + 1))
            continue
        attr = await s.set(ino, SetAttr(uid=other.uid))
        assert (attr.uid, attr.gid) == (other.uid, before.gid)
        attr = await s.set(ino, SetAttr(gid=other.gid))
        assert (attr.uid, attr.gid) == (other.uid, other.gid)
        attr = await s.set(ino, SetAttr(uid=0, gid=0))
        assert (attr.uid, attr.gid) == (0, 0)


@check
async def chown_drops_set_id_bits(s: Subject) -> None:
    if not (s.features.owners and s.fs.traits.kills_set_id):
        return
    ino = await s.file(ROOT, b"file", mode=0o755)
    await s.set(ino, SetAttr(mode=0o6755))
    assert _bits(await s.set(ino, SetAttr(uid=s.features.other.uid))) == 0o755
    assert _bits(await s.set(ino, SetAttr(uid=s.caller.uid, mode=0o4755))) == 0o4755


@check
async def writing_drops_set_id_bits_when_told(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", mode=0o755)
    data = [memoryview(b"x")]

    async def bits_after(mode: int, kill: bool) -> int:
        await s.set(ino, SetAttr(mode=mode))
        async with s.opened(ino) as handle:
            await s.fs.write_from(ino, handle, 0, data, kill)
        return _bits(await s.attr(ino))

    assert await bits_after(0o6755, True) == 0o755
    assert await bits_after(0o2745, True) in (0o2745, 0o745)  # without group execution it is no set-id bit
    assert await bits_after(0o1644, True) == 0o1644
    await s.set(ino, SetAttr(mode=0o4755))
    assert _bits(await s.set(ino, SetAttr(size=0, kill_set_id=True))) == 0o755


@check
async def setgid_directories_pass_on_their_group(s: Subject) -> None:
    if not s.features.owners:
        return
    directory = await s.mkdir(ROOT, b"directory")
    await s.set(directory, SetAttr(gid=s.features.other.gid))
    await s.set(directory, SetAttr(mode=0o2775))
    ino = await s.file(directory, b"file")
    assert (await s.attr(ino)).gid == s.features.other.gid
    below = await s.attr(await s.mkdir(directory, b"below"))
    assert below.gid == s.features.other.gid
    assert _bits(below) == 0o2755
    link = await s.symlink(directory, b"link", b"x")
    assert (await s.attr(link)).gid == s.features.other.gid


# Times ----------------------------------------------------------------------------------------


@check
async def times_are_nanoseconds(s: Subject) -> None:
    grain = s.features.time_granularity_ns
    times = [0, 1, 10**18 + 123_456_789, (1 << 31) * _SECOND - 1, (1 << 32) * _SECOND + 7]
    if s.features.before_1970:
        times += [-1, -_SECOND, -1_500_000_001]
    for ino in (await s.file(ROOT, b"file"), await s.mkdir(ROOT, b"directory"), await s.symlink(ROOT, b"link", b"x")):
        for at in times:
            attr = await s.set(ino, SetAttr(atime_ns=at, mtime_ns=at + _SECOND))
            assert (attr.atime_ns, attr.mtime_ns) == (at // grain * grain, (at + _SECOND) // grain * grain)
            assert attr.mtime_ns == (await s.attr(ino)).mtime_ns


@check
async def times_are_set_one_by_one(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    await s.set(ino, SetAttr(atime_ns=5 * _SECOND, mtime_ns=6 * _SECOND))
    attr = await s.set(ino, SetAttr(mtime_ns=7 * _SECOND))
    assert (attr.atime_ns, attr.mtime_ns) == (5 * _SECOND, 7 * _SECOND)
    attr = await s.set(ino, SetAttr(atime_ns=8 * _SECOND))
    assert (attr.atime_ns, attr.mtime_ns) == (8 * _SECOND, 7 * _SECOND)


@check
async def times_may_be_now(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    await s.set(ino, SetAttr(atime_ns=5, mtime_ns=6))
    attr = await s.set(ino, SetAttr(atime_ns=NOW, mtime_ns=NOW))
    now = time.time_ns()
    assert abs(attr.atime_ns - now) < 60 * _SECOND
    assert abs(attr.mtime_ns - now) < 60 * _SECOND


@check
async def changes_come_together(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"0123456789")
    attr = await s.set(ino, SetAttr(mode=0o640, size=4, atime_ns=7 * _SECOND, mtime_ns=8 * _SECOND))
    assert (_bits(attr), attr.size) == (0o640, 4)
    assert (attr.atime_ns, attr.mtime_ns) == (7 * _SECOND, 8 * _SECOND)


@check
async def no_change_at_all(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"x")
    before = await s.attr(ino)
    assert await s.set(ino, SetAttr()) == before


@check
async def attributes_by_handle(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", b"x")
    async with s.opened(ino) as handle:
        assert (await s.fs.getattr(ino, handle))[0] == await s.attr(ino)
        attr = (await s.fs.setattr(ino, SetAttr(size=100, mode=0o600), handle))[0]
        assert (attr.size, _bits(attr)) == (100, 0o600)


@check
async def lifetimes_are_not_negative(s: Subject) -> None:
    ino = await s.file(ROOT, b"file")
    entry = await s.lookup(ROOT, b"file")
    assert entry.entry_valid_ns >= 0
    assert entry.attr_valid_ns >= 0
    assert (await s.fs.getattr(ino))[1] >= 0


# Extended attributes --------------------------------------------------------------------------


@check
async def xattrs_are_kept(s: Subject) -> None:
    prefix = s.features.xattrs
    ino = await s.file(ROOT, b"file")
    if prefix is None:
        with failing(errno.ENOSYS, errno.EOPNOTSUPP):
            await s.fs.setxattr(ino, b"user.name", b"value")
        return
    for target in (ino, await s.mkdir(ROOT, b"directory")):
        values = {prefix + b"empty": b"", prefix + b"binary": bytes(range(256)), prefix + b"\xff\n": b"x" * 1000}
        for name, value in values.items():
            await s.fs.setxattr(target, name, value)
        for name, value in values.items():
            assert await s.fs.getxattr(target, name) == value
        listed = await s.fs.listxattr(target)
        assert set(values) <= set(listed)
        assert len(listed) == len(set(listed))
        for name in values:
            await s.fs.removexattr(target, name)
        assert not set(values) & set(await s.fs.listxattr(target))


@check
async def xattr_failures(s: Subject) -> None:
    if s.features.xattrs is None:
        return
    ino = await s.file(ROOT, b"file")
    name = s.features.xattrs + b"name"
    with failing(errno.ENODATA):
        await s.fs.getxattr(ino, name)
    with failing(errno.ENODATA):
        await s.fs.removexattr(ino, name)
    with failing(errno.ENODATA):
        await s.fs.setxattr(ino, name, b"x", XATTR_REPLACE)
    await s.fs.setxattr(ino, name, b"1", XATTR_CREATE)
    with failing(errno.EEXIST):
        await s.fs.setxattr(ino, name, b"2", XATTR_CREATE)
    await s.fs.setxattr(ino, name, b"3", XATTR_REPLACE)
    await s.fs.setxattr(ino, name, b"4")
    assert await s.fs.getxattr(ino, name) == b"4"
    with failing(errno.EOPNOTSUPP, errno.EINVAL):
        await s.fs.setxattr(ino, b"nonamespace", b"x")
    with failing(errno.ERANGE, errno.ENAMETOOLONG):
        await s.fs.setxattr(ino, s.features.xattrs + b"x" * 256, b"x")


@check
async def xattrs_follow_the_inode(s: Subject) -> None:
    if s.features.xattrs is None:
        return
    ino = await s.file(ROOT, b"file")
    name = s.features.xattrs + b"name"
    await s.fs.setxattr(ino, name, b"value")
    await s.fs.rename(ROOT, b"file", ROOT, b"renamed")
    await s.link(ino, ROOT, b"second")
    assert await s.fs.getxattr((await s.lookup(ROOT, b"second")).ino, name) == b"value"
    await s.fs.unlink(ROOT, b"renamed")
    assert await s.fs.getxattr(ino, name) == b"value"


@check
async def access_is_answered_or_left_to_the_consumer(s: Subject) -> None:
    ino = await s.file(ROOT, b"file", mode=0o600)
    if (code := await _access(s, ino, os.R_OK, s.caller)) != errno.ENOSYS:
        assert code == 0
        assert await _access(s, ino, os.R_OK | os.W_OK, s.features.other) == errno.EACCES


async def _access(s: Subject, ino: int, mask: int, caller: Caller) -> int:
    """The errno, or 0."""
    try:
        await s.fs.access(ino, mask, caller)
    except OSError as error:
        return error.errno or 0
    return 0
