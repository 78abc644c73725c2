"""`objects:`, `proc:` and `all:`, each with what it must not let happen."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from tests.externfs.driver import Driver, driving, refused
from umlfs import sources
from umlfs.errors import UsageError
from umlfs.externfs.filesystem import NodeFilesystem
from umlfs.externfs.objects.nodes import Allowed, ObjectDirectory


@dataclasses.dataclass
class Engine:
    """What a program might show."""

    speed: int = 5
    name: str = "one"
    limits: dict[str, float] = dataclasses.field(default_factory=lambda: {"low/est": 1.5, "..": 2.0})
    parts: list[Any] = dataclasses.field(default_factory=lambda: ["a", {"b": b"\0"}])
    _secret: str = "secret"
    started: int = 0
    callback: Any = print

    def start(self, times: int = 1) -> None:
        self.started += times

    def stop(self) -> None:
        raise RuntimeError("cannot stop")


def driver(value: Any, **allowed: Any) -> Driver:
    return Driver(NodeFilesystem(ObjectDirectory(value, Allowed(**allowed))))


async def test_reading_an_object() -> None:
    tree = driver(Engine())
    assert await tree.ls() == ["limits", "name", "parts", "speed", "started"]
    assert await tree.cat("speed") == b"5\n"
    assert await tree.cat("name") == b"one"
    assert await tree.ls("limits") == ["%2E.", "low%2Fest"]
    assert await tree.cat("limits/low%2Fest") == b"1.5\n"
    assert await tree.cat("parts/1/b") == b"\0"
    for path in ("_secret", "__class__", "callback", "start", "parts/__len__", "parts/-1", "parts/2"):
        with refused(errno.ENOENT):
            await tree.cat(path)
    with refused(errno.EACCES):
        await tree.put("speed", b"6")
    assert await driver(SimpleNamespace(a=1)).ls() == []


@pytest.mark.logs_warnings
async def test_changing_an_object() -> None:
    engine = Engine()
    tree = driver(engine, write=True, methods=frozenset({"start", "stop", "_hidden", "nothing"}))
    await tree.put("speed", b"7\n")
    await tree.put("name", b"two")
    await tree.put("limits/low%2Fest", b"3")
    await tree.put("start", b"")
    await tree.put("start", b"(4,)\n")
    assert (engine.speed, engine.name, engine.limits["low/est"], engine.started) == (7, "two", 3.0, 4)
    for path, data in (
        ("speed", b"'text'"),
        ("speed", b"__import__('os').system('x')"),
        ("speed", b"[" * 70000),
        ("speed", b"-" * 5000 + b"1"),
        ("start", b"open('x')"),
    ):
        with refused(errno.EINVAL):
            await tree.put(path, data)
    with refused(errno.EIO):
        await tree.put("stop", b"()")
    assert engine.speed == 7


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


async def test_processes() -> None:
    child = sleeper()
    try:
        async with driving("proc:,rw") as tree:
            assert str(child.pid) in await tree.ls()
            assert b"time.sleep" in await tree.cat(f"{child.pid}/cmdline")
            assert await tree.cat(f"{child.pid}/parent") == f"{os.getpid()}\n".encode()
            await tree.put(f"{child.pid}/nice", b"7")
            assert await tree.cat(f"{child.pid}/nice") == b"7\n"
            for data in (b"NONSENSE", b"9", b"_DFL", b" ", b"TERM KILL"):
                with refused(errno.EINVAL):
                    await tree.put(f"{child.pid}/signal", data)
            with refused(errno.EPERM):
                await tree.put("1/signal", b"TERM")
            with refused(errno.EPERM):
                await tree.put(f"{os.getpid()}/signal", b"TERM")
            for path in ("0x1", "-1", f"0{child.pid}", "999999999999", "self"):
                with refused(errno.ENOENT):
                    await tree.ls(path)
            await tree.put(f"{child.pid}/signal", b"SIGTERM\n")
            assert child.wait(10) == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()


async def test_several_at_once(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "dir").mkdir(parents=True)
        (tmp_path / name / "same").write_text("same")
        (tmp_path / name / "other").write_text(name)
    (tmp_path / "two/dir/only").write_text("only")
    word = f"all:a={tmp_path}/one,b={tmp_path}/two"
    async with driving(word) as tree:
        assert await tree.ls() == ["a", "b", "every", "outcome"]
        assert await tree.cat("b/dir/only") == b"only"
        assert await tree.ls("every/dir") == ["only"]
        assert await tree.cat("every/same") == b"same"
        assert await tree.cat("every/other") == b"==> a <==\none\n==> b <==\ntwo\n"
        with refused(errno.EROFS, errno.EPERM, errno.EACCES):
            await tree.put("a/same", b"x")
    async with driving(f"{word},rw") as tree:
        await tree.put("every/same", b"new")
        await tree.put("a/dir/made", b"made")
        await tree.rm("every/other")
        await tree.mkdir("every/fresh")
        await tree.put("every/fresh/file", b"1")
        (tmp_path / "one/fresh/more").touch()
        await tree.rm("every/fresh/file")
        with refused(errno.ENOTEMPTY):
            await tree.rmdir("every/fresh")
        said = (await tree.cat("outcome")).decode()
        assert "a: remove /other: done\nb: remove /other: done\n" in said
        assert "a: remove /fresh: Directory not empty\nb: remove /fresh: done\n" in said
    assert (tmp_path / "one/same").read_text() == (tmp_path / "two/same").read_text() == "new"
    assert (tmp_path / "one/dir/made").read_text() == "made"
    assert not (tmp_path / "two/other").exists()


@pytest.mark.parametrize("word", ["all:", "all:x", "all:a=/,a=/", "all:every=/", "all:a=", "objects:no.such", "proc:1"])
def test_wrong_words(word: str) -> None:
    with pytest.raises(UsageError):
        trio.run(sources.parse(word).open)
