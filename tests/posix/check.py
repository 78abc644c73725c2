"""Checks of a directory, by the calls that programs make."""

from __future__ import annotations

import errno
import os
import pickle
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Check = Callable[[Path], None]
CHECKS: list[Check] = []
"""Every check, in the order of definition. Each gets an empty directory with mode 0777, and runs as root."""


def check(function: Check) -> Check:
    """Add `function` to `CHECKS`."""
    CHECKS.append(function)
    return function


def fails(code: int | tuple[int, ...], call: Callable[..., object], *args: object, **options: object) -> None:
    """The call must fail with this errno, or one of several."""
    codes = code if isinstance(code, tuple) else (code,)
    try:
        call(*args, **options)
    except OSError as error:
        found = error.errno or 0
        names = [errno.errorcode[one] for one in codes]
        assert found in codes, f"{errno.errorcode.get(found)}, not {names}"
    else:
        raise AssertionError(f"succeeded, where {[errno.errorcode[one] for one in codes]} is due")


def as_user(uid: int, gid: int, work: Callable[[], object], groups: Sequence[int] = ()) -> None:
    """Run `work` as another user, in a process of its own; what fails there fails here."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        _work_as(uid, gid, groups, work, writer)
    os.close(writer)
    with open(reader, "rb") as told:
        content = told.read()
    os.waitpid(child, 0)
    outcome: Any = pickle.loads(content)
    assert outcome is None, outcome


def _work_as(uid: int, gid: int, groups: Sequence[int], work: Callable[[], object], writer: int) -> None:
    outcome: str | None = None
    try:
        os.setgroups(list(groups))
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        work()
    except BaseException:
        outcome = traceback.format_exc()
    os.write(writer, pickle.dumps(outcome))
    os._exit(0)


def make(path: Path, content: bytes = b"", mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> Path:
    """A file."""
    path.write_bytes(content)
    os.chown(path, *owner)
    path.chmod(mode)
    return path


def make_dir(path: Path, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> Path:
    path.mkdir()
    os.chown(path, *owner)
    path.chmod(mode)
    return path
