"""Nothing leads out of the export: no name, no symlink, no link of /proc, no swap at the wrong moment."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hostfs import HostFilesystem
from tests.contract.filesystem import Subject
from tests.contract.subject import failing
from tests.hostfs.features import features_of
from umlfs.filesystem import ROOT, SetAttr
from umlfs.host import syscalls

SECRET = b"SECRET"
EXCHANGE = 2
ROUNDS = 400


class Place:
    """An export with a directory `d` and a file `f`, beside an outside that looks the same."""

    def __init__(self, parent: Path) -> None:
        self.export = parent / "export"
        self.outside = parent / "outside"
        for top, data in ((self.export, b"public data"), (self.outside, SECRET)):
            (top / "d" / "sub").mkdir(parents=True)
            (top / "f").write_bytes(data)
            (top / "d" / "f").write_bytes(data)
        (self.export / "to-d").symlink_to(self.outside / "d")
        (self.export / "to-f").symlink_to(self.outside / "f")
        self.before = self.state()

    def state(self) -> list[tuple[str, int, int, int, bytes, list[str]]]:
        """Everything outside, to the last bit that a guest could change."""
        found = []
        for path in sorted([self.outside, *self.outside.rglob("*")]):
            at = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            found.append((str(path), at.st_mode, at.st_uid, at.st_mtime_ns, data, os.listxattr(path)))
        return found

    @contextmanager
    def swapping(self, one: bytes, other: bytes) -> Iterator[None]:
        """A thread of the host exchanges two names of the export, over and over."""
        done = threading.Event()
        fd = os.open(self.export, os.O_PATH)

        def swap() -> None:
            while not done.is_set():
                syscalls.rename(fd, one, fd, other, EXCHANGE)

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            os.close(fd)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(params=["stateless", "handles", "starved"])
def subject(place: Place, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Subject:
    if request.param == "starved":
        # Every descriptor is soon closed, and opened again by its name.
        monkeypatch.setattr("hostfs.resolver.limits", lambda *_: (1, 1, 100))
    filesystem = HostFilesystem(place.export, stateless=request.param != "handles")
    return Subject(filesystem, features_of(place.export))


Operation = Callable[[Subject, int, int], Awaitable[object]]


async def _read(s: Subject, ino: int, turn: int) -> None:
    assert SECRET not in await s.read(ino)


async def _truncate(s: Subject, ino: int, turn: int) -> None:
    await s.set(ino, SetAttr(size=turn))


async def _attributes(s: Subject, ino: int, turn: int) -> None:
    changes = SetAttr(mode=0o600 + turn % 8, atime_ns=turn, mtime_ns=turn)
    await s.set(ino, changes)
    if s.features.xattrs:
        await s.fs.setxattr(ino, s.features.xattrs + b"x", b"%d" % turn)
        await s.fs.getxattr(ino, s.features.xattrs + b"x")


async def _link(s: Subject, ino: int, turn: int) -> None:
    await s.link(ino, ROOT, b"link-%d" % turn)


ON_FILES: dict[str, Operation] = {
    "read": _read,
    "write": lambda s, ino, turn: s.write(ino, b"guest"),
    "truncate": _truncate,
    "attributes": _attributes,
    "link": _link,
}


async def _read_below(s: Subject, ino: int, turn: int) -> None:
    assert SECRET not in await s.read((await s.lookup(ino, b"f")).ino)


async def _list(s: Subject, ino: int, turn: int) -> None:
    for _, entry in await s.entries(ino, True):
        assert entry is None or entry.attr.size != len(SECRET)


async def _replace(s: Subject, ino: int, turn: int) -> None:
    name = b"new-%d" % turn
    await s.file(ROOT, name, b"guest")
    await s.fs.rename(ROOT, name, ino, b"f")


async def _remove(s: Subject, ino: int, turn: int) -> None:
    await s.fs.unlink(ino, b"f")


IN_DIRECTORIES: dict[str, Operation] = {
    "read": _read_below,
    "list": _list,
    "create": lambda s, ino, turn: s.file(ino, b"new-%d" % turn, b"guest"),
    "mkdir": lambda s, ino, turn: s.mkdir(ino, b"new-%d" % turn),
    "symlink": lambda s, ino, turn: s.symlink(ino, b"new-%d" % turn, b"x"),
    "mknod": lambda s, ino, turn: s.mknod(ino, b"new-%d" % turn, stat.S_IFIFO | 0o644),
    "rename": _replace,
    "unlink": _remove,
    "rmdir": lambda s, ino, turn: s.fs.rmdir(ino, b"sub"),
    "attributes": _attributes,
}


async def _attempt(s: Subject, ino: int, turn: int, operation: Operation) -> None:
    """What fails has failed; what succeeds has succeeded inside. A descriptor is never used that was closed."""
    code = 0
    try:
        await operation(s, ino, turn)
    except OSError as error:
        code = error.errno or 0
    assert code != errno.EBADF


async def _attempts(s: Subject, name: bytes, operation: Operation) -> None:
    for turn in range(ROUNDS):
        await _attempt(s, (await s.lookup(ROOT, name)).ino, turn, operation)
        if turn % 20 == 19:
            s.forget_all()


@pytest.mark.parametrize("operation", ON_FILES.values(), ids=ON_FILES)
async def test_file_swapped_with_symlink(place: Place, subject: Subject, operation: Operation) -> None:
    with place.swapping(b"f", b"to-f"):
        await _attempts(subject, b"f", operation)
    await subject.fs.close()
    assert place.state() == place.before


@pytest.mark.parametrize("operation", IN_DIRECTORIES.values(), ids=IN_DIRECTORIES)
async def test_directory_swapped_with_symlink(place: Place, subject: Subject, operation: Operation) -> None:
    with place.swapping(b"d", b"to-d"):
        await _attempts(subject, b"d", operation)
    await subject.fs.close()
    assert place.state() == place.before


@pytest.mark.parametrize("operation", IN_DIRECTORIES.values(), ids=IN_DIRECTORIES)
async def test_known_directory_swapped_with_symlink(place: Place, subject: Subject, operation: Operation) -> None:
    """The consumer does not look the name up again."""
    ino = (await subject.lookup(ROOT, b"d")).ino
    with place.swapping(b"d", b"to-d"):
        for turn in range(ROUNDS):
            await _attempt(subject, ino, turn, operation)
    await subject.fs.close()
    assert place.state() == place.before


async def test_symlinks_lead_nowhere(place: Place, subject: Subject) -> None:
    for target in ("/proc/self/root", "/proc/self/cwd", "..", "../outside", "/"):
        link = place.export / "link"
        link.symlink_to(target)
        ino = (await subject.lookup(ROOT, b"link")).ino
        assert await subject.fs.readlink(ino) == os.fsencode(target)
        for turn, operation in enumerate(IN_DIRECTORIES.values()):
            with failing(errno.ENOTDIR, errno.EINVAL, errno.EOPNOTSUPP):
                await operation(subject, ino, turn)
        await subject.fs.unlink(ROOT, b"new-%d" % list(IN_DIRECTORIES).index("rename"))
        for name in ("read", "write", "truncate"):
            with failing(errno.EINVAL):
                await ON_FILES[name](subject, ino, 1)
        link.unlink()
    await subject.fs.close()
    assert place.state() == place.before


async def test_names_that_are_none(place: Place, subject: Subject) -> None:
    s = subject
    ino = (await s.lookup(ROOT, b"f")).ino
    for name in (b"", b".", b"..", b"../outside", b"d/f", b"/", b"/etc", b"a\0b", b"\0"):
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda name=name: s.fs.lookup(ROOT, name),  # type: ignore[misc]
            lambda name=name: s.file(ROOT, name),  # type: ignore[misc]
            lambda name=name: s.mkdir(ROOT, name),  # type: ignore[misc]
            lambda name=name: s.mknod(ROOT, name, stat.S_IFIFO | 0o644),  # type: ignore[misc]
            lambda name=name: s.symlink(ROOT, name, b"x"),  # type: ignore[misc]
            lambda name=name: s.link(ino, ROOT, name),  # type: ignore[misc]
            lambda name=name: s.fs.unlink(ROOT, name),  # type: ignore[misc]
            lambda name=name: s.fs.rmdir(ROOT, name),  # type: ignore[misc]
            lambda name=name: s.fs.rename(ROOT, name, ROOT, b"new"),  # type: ignore[misc]
            lambda name=name: s.fs.rename(ROOT, b"f", ROOT, name),  # type: ignore[misc]
        ]
        for attempt in attempts:
            with failing(errno.EINVAL):
                await attempt()
    await s.fs.close()
    assert place.state() == place.before


async def test_dot_dot_of_the_root_is_the_root(place: Place, subject: Subject) -> None:
    numbers: dict[bytes, int] = {}

    class Sink:
        def __call__(self, name: bytes, offset: int, ino: int, mode: int, entry: object) -> bool:
            numbers[name] = ino
            return True

    await subject.fs.readdir(ROOT, 0, 0, Sink())
    assert numbers[b".."] == numbers[b"."] == place.export.stat().st_ino
    await subject.fs.close()


async def test_a_fifo_on_the_host_is_never_waited_for(place: Place, subject: Subject) -> None:
    ino = (await subject.lookup(ROOT, b"f")).ino
    (place.export / "f").unlink()
    os.mkfifo(place.export / "f")
    for operation in (_read, ON_FILES["write"], _truncate):
        with failing(errno.ESTALE):
            await operation(subject, ino, 1)
    await subject.fs.close()
