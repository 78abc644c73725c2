"""The commands, as people call them: as root and as an ordinary user; killed, mounted, kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.appliance.images import FSTAB, make, make_tree, run
from tests.guest.caller import BOUND, Caller, eventually
from tests.standby.listening import listens

pytestmark = pytest.mark.guest


def image_of(caller: Caller) -> Path:
    image = make("ext4", caller.directory / "image", make_tree(caller.directory / "tree"))
    caller.own(caller.directory)
    return image


def test_looking_inside_and_mending(caller: Caller) -> None:
    """One appliance for all that reads."""
    image_of(caller)

    def uml(*words: str) -> str:
        done = caller.finish(caller.command(*words))
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode()

    assert uml("ls", "--keep", "60", "image") == "etc\nhome\nlost+found\nusr\n"
    assert uml("cat", "image:/etc/fstab") == FSTAB
    # What would take long to import is not: the standby does it.
    assert eventually(lambda: any(map(listens, (caller.runtime / "umlfs-kept").glob("*.*"))))
    line = caller.command("stat", "image:/etc/fstab")
    line[line.index("-P") : line.index("-P")] = ["-X", "importtime"]
    done = caller.finish(line)
    assert b"/etc/fstab" in done.stdout
    assert b"runtime.standby.client" in done.stderr
    assert b"click" not in done.stderr
    assert uml("find", "image:/home", "día*") == "/home/me/día ☂\n"
    # Writing ends the kept one.
    assert uml("cp", "-f", "--owner", "0:0", "tree/etc/hostname", "image:/etc/fstab") == ""
    assert uml("cat", "image:/etc/fstab") == "box\n"
    run("e2fsck", "-fn", caller.directory / "image")


def test_a_mounted_image(caller: Caller) -> None:
    needs.path("/dev/fuse")
    image_of(caller)
    caller.make("m")
    try:
        done = caller.finish(caller.command("mount", "image", "m", "-o", "rw"))
        assert (done.returncode, done.stderr) == (0, b"")
        script = f"cd {caller.directory} && cat m/etc/fstab && echo new >m/home/new && mkdir m/home/sub"
        command = ["sh", "-c", script]
        words = caller.user.command(*command) if caller.user else command
        seen = subprocess.run(words, capture_output=True, text=True, check=False)
        assert (seen.stdout, seen.stderr) == (FSTAB, "")
    finally:
        caller.finish(caller.command("umount", "m"))
    run("e2fsck", "-fn", caller.directory / "image")
    done = caller.finish(caller.command("cat", "image:/home/new"))
    assert done.stdout == b"new\n"


def test_nothing_outlives_a_killed_command(me: Caller) -> None:
    """Neither the guest nor the program that reads the image's format."""
    image_of(me)
    run("qemu-img", "convert", "-O", "qcow2", me.directory / "image", me.directory / "image.qcow2")
    reader, writer = os.pipe()
    with subprocess.Popen(me.command("cat", "image.qcow2:/home/me/data"), stdout=writer) as process:
        os.close(writer)
        # It has begun, and waits for somebody to read on.
        assert len(os.read(reader, 100)) == 100
        assert any(b"qemu-nbd" in line for line in _commands(me))
        process.send_signal(signal.SIGKILL)
        process.wait(BOUND)
    os.close(reader)
    assert eventually(lambda: not me.left()), me.left()


def test_a_guest_that_is_killed_meanwhile(me: Caller) -> None:
    """One line, whatever was under way."""
    image_of(me)
    reader, writer = os.pipe()
    command = me.command("cat", "image:/home/me/data")
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE) as process, open(reader, "rb") as output:
        os.close(writer)
        assert len(output.read(100)) == 100
        os.kill(int(next(me.runtime.glob("umlfs-*/*/pid")).read_text()), signal.SIGKILL)
        output.read()
        _, errors = process.communicate(timeout=BOUND)
    what = b"uml: image: the guest ended by itself (the kernel died of signal 9); what was done until then may be "
    assert (process.returncode, errors) == (1, what + b"incomplete\n")


def test_a_guest_that_panics_meanwhile(me: Caller) -> None:
    """With what its kernel said."""
    image = image_of(me)
    run("tune2fs", "-e", "panic", image)
    run("debugfs", "-w", "-R", "set_inode_field /home block[0] 0", image)
    done = me.finish(me.command("find", "image:/"))
    line = done.stderr.decode()
    assert (done.returncode, line.count("\n")) == (1, 1)
    assert line.startswith("uml: image: the guest ended by itself (the kernel died of signal 6): Kernel panic - not ")
    assert "panic forced after error" in line


def _commands(caller: Caller) -> list[bytes]:
    """The command lines of all processes that have to do with the caller's runtime directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if bytes(caller.runtime) in line:
            found.append(line)
    return found


def test_an_ordinary_user_gets_what_can_be_had(caller: Caller) -> None:
    """Owners that cannot be kept are told, and so is what is left out."""
    if caller.user is None:
        return
    tree = make_tree(caller.directory / "tree")
    os.mknod(tree / "device", 0o600 | 0o20000, os.makedev(1, 3))
    make("ext4", caller.directory / "image", tree)
    shutil.rmtree(tree)
    caller.own(caller.directory)
    done = caller.finish(caller.command("cp", "-r", "image:/", "out"))
    errors = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert errors[0] == "uml: /device: Operation not permitted: left out"
    assert errors[1].startswith("uml: owners are lost: out cannot keep those of ")
    assert (caller.directory / "out/etc/fstab").read_text() == FSTAB
    for words, status in (["cp"], 0), (["cp", "--strict"], 1):
        done = caller.finish(caller.command(*words, "/etc/passwd", f"copy{status}"))
        assert (done.returncode, done.stderr.count(b"owners are lost")) == (status, 1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_copy_leaves_the_image_in_order(number: int, status: int, me: Caller) -> None:
    """Clean, unmounted, and without the half that was copied."""
    image = make("ext4", me.directory / "image")
    tree = me.make("tree")
    for number_of_file in range(20):
        (tree / str(number_of_file)).write_bytes(os.urandom(1 << 20))
    before = image.stat().st_blocks
    with subprocess.Popen(me.command("cp", "-r", "tree", "image:/copy"), stderr=subprocess.PIPE) as process:
        # It may also be done already: what was promised holds then too.
        assert eventually(lambda: image.stat().st_blocks > before or process.poll() is not None)
        process.send_signal(number)
        _, errors = process.communicate(timeout=2 * BOUND)
    run("e2fsck", "-fn", image)
    done = me.finish(me.command("ls", "image"))
    found = (process.returncode, done.stdout)
    assert found in ((status, b"lost+found\n"), (0, b"copy\nlost+found\n")), errors
