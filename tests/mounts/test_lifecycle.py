"""Mounts come, tell of themselves, and go without leaving anything."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.mounts import table as mount_table
from runtime.mounts.table import find
from tests import needs
from tests.mounts.server import UML, mounted, wait_for

FUSE_MEND = "chmod 666 /dev/fuse, or run the tests as root"


def uml(*args: str | Path, status: int = 0) -> str:
    """What the command says, on both streams."""
    done = subprocess.run(
        [*UML, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=60
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def listed(mountpoint: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(uml("mount", "--json"))
    return [mount for mount in found if mount["mountpoint"] == str(mountpoint)]


def gone(pid: int) -> bool:
    """Whether the process ends, within some seconds; whoever inherited it may be slow to look."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], 15)[0])
    finally:
        os.close(process)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    needs.path("/dev/fuse", FUSE_MEND)
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "file").write_text("content")
    return directory


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "mount point"
    directory.mkdir()
    yield directory
    while find(directory) is not None:
        mount_table.umount(str(directory), lazy=True)


@pytest.mark.parametrize("options", ["ro", "notify", "cache=never", "uid=7"])
def test_a_mount_keeps_no_stream_of_whoever_made_it(source: Path, mountpoint: Path, options: str) -> None:
    """`uml mount … | tee log` ends, whatever else the mount has started."""
    assert uml("mount", "-o", options, source, mountpoint) == ""
    uml("umount", mountpoint)


def test_in_the_background(source: Path, mountpoint: Path) -> None:
    assert uml("mount", source, mountpoint) == ""
    assert (mountpoint / "file").read_text() == "content"
    (line,) = listed(mountpoint)
    assert line["source"] == str(source)
    assert line["requests"] > 0
    assert abs(line["since"] - time.time()) < 60
    assert str(mountpoint) in uml("mount")
    assert "already" in uml("mount", source, mountpoint, status=1)
    assert uml("umount", mountpoint) == ""
    assert gone(line["pid"])
    assert not os.listdir(mountpoint)
    assert "nothing of ours" in uml("umount", mountpoint, status=1)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "fusermount3"])
def test_ends_cleanly(how: signal.Signals | str, source: Path, mountpoint: Path) -> None:
    with mounted(source, mountpoint) as pid:
        (mountpoint / "new").write_text("x" * 100_000)
        if isinstance(how, str):
            subprocess.run([needs.program(how), "-u", mountpoint], check=True)
        else:
            os.kill(pid, how)
        while find(mountpoint) is not None:
            time.sleep(0.01)
    assert (source / "new").read_text() == "x" * 100_000
    assert not os.listdir(mountpoint)


UNMOUNTED_AMID_A_REQUEST = """
import errno, pyfuse3, trio
from runtime.cli import main

serve = pyfuse3.main

async def interrupted():
    await serve()
    async with trio.open_nursery():
        raise OSError(errno.ECONNABORTED, "reading a request")

pyfuse3.main = interrupted
main()
"""


def test_unmounted_amid_a_request(source: Path, mountpoint: Path) -> None:
    command = [sys.executable, "-c", UNMOUNTED_AMID_A_REQUEST, "mount", "--foreground", str(source), str(mountpoint)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_for(mountpoint, server)
    uml("umount", mountpoint)
    said = server.communicate(timeout=20)[1]
    assert (said, server.returncode) == ("", 0)


def test_a_dead_mount_is_cleared(source: Path, mountpoint: Path) -> None:
    uml("mount", source, mountpoint)
    for _ in range(2):
        (line,) = listed(mountpoint)
        os.kill(line["pid"], signal.SIGKILL)
        assert gone(line["pid"])
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
            # What the kernel knows already it still tells.
            os.stat(mountpoint / "not asked for yet")
        uml("mount", source, mountpoint)
        assert (mountpoint / "file").read_text() == "content"
    (line,) = listed(mountpoint)
    os.kill(line["pid"], signal.SIGKILL)
    assert gone(line["pid"])
    assert listed(mountpoint) == []
    assert not os.listdir(mountpoint)


@pytest.mark.parametrize(
    "call", ["mounts.start(*sys.argv[1:], options)", "trio.run(mounts.serve, *sys.argv[1:], options, int)"]
)
def test_a_mount_that_dies_at_once(call: str, source: Path, mountpoint: Path) -> None:
    """The kernel takes the mount, but at the first request libfuse finds an option that it cannot do."""
    script = f"""
import sys, trio
from runtime.mounts import mounting as mounts
options = mounts.MountOptions(kernel={{"max_read=8192"}}, by_pyfuse3=True)
{call}"""
    done = subprocess.run(
        [sys.executable, "-c", script, source, mountpoint], capture_output=True, text=True, check=False, timeout=60
    )
    assert "UmlError" in done.stderr
    assert find(mountpoint) is None


def test_umount_of_a_dead_mount(source: Path, mountpoint: Path) -> None:
    uml("mount", source, mountpoint)
    (line,) = listed(mountpoint)
    os.kill(line["pid"], signal.SIGKILL)
    assert gone(line["pid"])
    assert uml("umount", mountpoint) == ""
    assert not os.listdir(mountpoint)


def test_a_mount_that_hangs_can_be_taken_away(source: Path, mountpoint: Path) -> None:
    """Nothing on the way there touches it."""
    uml("mount", source, mountpoint)
    (line,) = listed(mountpoint)
    os.kill(line["pid"], signal.SIGSTOP)
    assert uml("umount", "--lazy", mountpoint) == ""
    assert not os.listdir(mountpoint)
    os.kill(line["pid"], signal.SIGCONT)
    assert gone(line["pid"])


def test_in_use(source: Path, mountpoint: Path) -> None:
    uml("mount", source, mountpoint)
    (line,) = listed(mountpoint)
    with open(mountpoint / "file") as file:
        assert "in use" in uml("umount", mountpoint, status=1)
        assert file.read() == "content"
        assert uml("umount", "--lazy", mountpoint) == ""
        assert not os.listdir(mountpoint)
        file.seek(0)
        assert file.read() == "content"
    assert gone(line["pid"])


def test_what_cannot_be_mounted(source: Path, mountpoint: Path) -> None:
    for args, message, status in (
        ((source, mountpoint / "missing"), "no such directory", 2),
        ((source, source / "file"), "not a directory", 2),
        ((source / "missing", mountpoint), "no such file", 2),
        ((source, mountpoint, "-o", "colour=blue"), "unknown option 'colour'", 2),
        (("raw:no\nfile", mountpoint), "uml: raw:no\\nfile: no such file", 2),
        (("nbd+unix:///x?socket=/none", mountpoint), "socket=/none: No such file", 1),
        ((source,), "no mount point", 2),
    ):
        said = uml("mount", *args, status=status)
        assert message in said
        assert said.count("\n") == 1
    assert find(mountpoint) is None


def test_over_a_directory_within_its_source(source: Path) -> None:
    inside = source / "within" / "mounted"
    inside.mkdir(parents=True)
    (source / "within" / "file").touch()
    with mounted(source, inside):
        assert sorted(os.listdir(inside)) == ["file", "within"]
        assert os.listdir(inside / "within") == ["file"]
        assert not (inside / "within" / "mounted").exists()
        for change in (os.mkdir, os.rmdir, lambda path: os.rename(inside / "file", path)):
            with pytest.raises(OSError, match=r"busy|No such"):
                change(inside / "within" / "mounted")
        subprocess.run(["du", "-s", source], check=True, timeout=20, stdout=subprocess.DEVNULL)


def test_two_that_lie_within_each_others_sources(source: Path) -> None:
    first, second = source / "first", source / "second"
    first.mkdir()
    second.mkdir()
    with mounted(source, first) as pid, mounted(source, second):
        assert os.listdir(second) == ["file"]
        subprocess.run(["find", source, "-ls"], check=True, timeout=20, stdout=subprocess.DEVNULL)
        # The first goes first: it looks into the second, which is in use for that long.
        os.kill(pid, signal.SIGTERM)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert find(first) is None


def test_read_only(source: Path, mountpoint: Path) -> None:
    of_mount8 = "auto,users,nofail,_netdev,x-systemd.automount,comment=none"
    with mounted(source, mountpoint, f"ro,noatime,noexec,nodev,nosuid,dirsync,sync,default_permissions,{of_mount8}"):
        assert (mountpoint / "file").read_text() == "content"
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            (mountpoint / "new").touch()


def test_a_mount_that_is_asked_for_twice_at_once(source: Path, mountpoint: Path) -> None:
    """One of them wins, and says so of itself."""
    commands = [subprocess.Popen([*UML, "mount", source, mountpoint], stderr=subprocess.PIPE) for _ in range(2)]
    said = [command.communicate(timeout=60)[1] for command in commands]
    assert any(command.returncode == 0 for command in commands), said
    assert (mountpoint / "file").read_text() == "content"


@pytest.mark.mapped_root
def test_by_mount8_and_by_fstab(source: Path, mountpoint: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, where the helper is where mount(8) looks for it."""
    upper, work, fstab = tmp_path / "upper", tmp_path / "work", tmp_path / "fstab"
    upper.mkdir()
    work.mkdir()
    helper = upper / "mount.fuse.umlfs"
    main = "from runtime.cli.mount_helper import main; main()"
    helper.write_text(f"#!/bin/sh\nexec {UML[0]} -c '{main}' \"$@\"\n")
    helper.chmod(0o755)
    escaped = str(mountpoint).replace(" ", "\\040")
    fstab.write_text(f"{source} {escaped} fuse.umlfs ro,noauto,x-test 0 0\n")
    sbin = os.path.realpath("/sbin")
    script = f"""
        set -e
        export PYTHONPATH={Path(__file__).parents[2]}
        mount -t overlay -o lowerdir={upper}:{sbin} overlay {sbin}
        mount -t fuse.umlfs -o hide=secret {source} "$1"
        cat "$1/file"; ! test -e "$1/secret"; umount "$1"
        mount -T {fstab} "$1"
        cat "$1/file"; ! touch "$1/new" 2>/dev/null; umount "$1"
        mount -t fuse.umlfs -o suid,dev {source} "$1"
        ! grep -q 'fuse.umlfs .*no[sd]' /proc/mounts
        mount -o remount,ro "$1"; ! touch "$1/new" 2>/dev/null
        mount -o remount,rw,nosuid "$1"; touch "$1/new"; grep -q 'fuse.umlfs rw,nosuid,' /proc/mounts; umount "$1"
        mount -t fuse.umlfs -o ro {source} "$1"
        ! mount -o remount,rw "$1"; umount "$1"
    """
    (source / "secret").touch()
    done = subprocess.run(
        [*needs.mount_namespace(), "sh", "-c", script, "sh", mountpoint],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    refused = f"uml: {mountpoint}: its source was opened for reading only; unmount it, and mount it anew with rw\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "contentcontent", refused)


@pytest.mark.mapped_root
def test_another_namespace_keeps_it(source: Path, mountpoint: Path) -> None:
    """Unmounted here, its server goes on: whose namespace it is that needs it is said to the next who mounts it."""
    humfs = source.parent / "humfs"
    uml("humfs", "create", "--size", "10M", humfs)
    subprocess.run([sys.executable, Path(sys.executable).with_name("uml"), "mount", humfs, mountpoint], check=True)
    server = listed(mountpoint)[0]["pid"]
    elsewhere = needs.mount_namespace()
    with subprocess.Popen([*elsewhere, "sh", "-c", "echo; exec sleep 100"], stdout=subprocess.PIPE) as keeper:
        try:
            assert keeper.stdout is not None
            keeper.stdout.readline()
            why = f"in the mount namespace of sleep (pid {keeper.pid})"
            subprocess.run(["umount", "-l", mountpoint], check=True)
            assert why in uml("mount", humfs, mountpoint, status=1)
        finally:
            keeper.kill()
    assert gone(server)


def test_wait_for_gives_the_status(source: Path, mountpoint: Path) -> None:
    server = subprocess.Popen(
        [*UML, "mount", "--foreground", source, mountpoint], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    try:
        assert wait_for(mountpoint, server).source == str(source)
    finally:
        server.send_signal(signal.SIGINT)
        assert server.communicate(timeout=20)[1] == ""
    assert server.returncode == 0
