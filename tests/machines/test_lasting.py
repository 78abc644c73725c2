"""Machines on a snapshot of this host's root, with our own process 1: from their boot to their end."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
from functools import partial
from pathlib import Path

import pytest

from runtime.guest.initramfs import build, find_busybox
from runtime.kernels.kernel import find_kernel
from runtime.machines.ended import ENDED
from runtime.mconsole.wire import NoticeKind, decode_notification
from tests import needs
from tests.guest import caller
from tests.guest.test_interactive import CTRL_C, on_terminal
from tests.machines.household import BOUND, Household
from umlfs.cow.check import Severity, check, worst
from umlfs.cow.merge import merge

pytestmark = pytest.mark.guest


eventually = partial(caller.eventually, seconds=BOUND)


def test_a_life(ordinary: Household) -> None:
    """Of an ordinary user's machine, through all commands."""
    uml = ordinary
    image(uml)
    assert uml.ok("boot", "-d", "--wait", "umid=it", "mem=64M", "ubd1=cow,image", "con1=port:0", "con3=pts") == "it\n"
    places = use_lines(uml)
    run_commands(uml)
    run_side_by_side(uml)
    run_on_terminal(uml)
    look(uml)
    look_inside(uml)
    plug(uml)
    plug_directory(uml)
    copy_disks(uml)
    pause(uml)
    restart(uml)
    assert use_lines(uml) == places
    assert uml.ok("halt", "it") == ""
    assert uml.ps() == []
    assert eventually(lambda: [path.name for path in uml.machines.iterdir()] == [ENDED])
    look_back(uml)
    assert uml.error("exec", "it", "--", "true") == (
        125,
        "it: no such machine is running; 'uml ps' lists those that run",
    )


def look_back(uml: Household) -> None:
    """How the machine ended, and what it said, until it is forgotten."""
    (found,) = json.loads(uml.ok("ps", "-a", "--json"))
    assert (found["umid"], found["state"], found["status"], found["how"]) == ("it", "ended", 0, "")
    assert "ended (0) " in uml.ok("ps", "-a")
    assert "Linux version" in uml.ok("logs", "-f", "it")
    assert found["last_words"] in uml.ok("logs", "--tail", "3", "it")
    assert uml.ok("rm", "it") == ""
    assert json.loads(uml.ok("ps", "-a", "--json")) == []
    assert uml.error("rm", "it") == (1, "it: no such machine has ended; 'uml ps -a' lists those that have")


def run_commands(uml: Household) -> None:
    done = uml.uml("exec", "it", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert uml.ok("exec", "-i", "it", "--", "wc", "-c", input=bytes(3_000_000)) == "3000000\n"
    assert uml.ok("exec", "it", "--", "cat") == ""
    assert uml.ok(
        "exec", "--user", "nobody", "--env", "A=b c", "--pwd", "/usr", "it", "sh", "-c", "id -un; pwd; echo $A"
    )
    assert uml.error("exec", "it", "--", "no-such-command")[0] == 127
    assert uml.error("exec", "-t", "it", "true")[0] == 2


def use_lines(uml: Household) -> list[str]:
    """Lines of a machine in the background are where both commands tell, and the guest is at their other ends."""
    places = uml.ok("console", "--list", "it").splitlines()
    assert uml.ok("ps", "it").splitlines()[2:] == places
    found = dict(place.split("  ", 1) for place in places)
    assert list(found) == ["con0", "con1", "con3"]
    with socket.create_connection(("127.0.0.1", int(found["con1"].removeprefix("port:")))) as port:
        uml.ok("exec", "it", "sh", "-c", "echo by the port >/dev/tty1")
        hears(port.fileno(), b"by the port")
    line = os.open(found["con3"].removeprefix("pts:"), os.O_RDWR | os.O_NOCTTY)
    uml.ok("exec", "it", "sh", "-c", "echo by the line >/dev/tty3")
    hears(line, b"by the line")
    os.close(line)
    return places


def hears(fd: int, text: bytes) -> None:
    heard = b""
    while text not in heard:
        assert select.select([fd], [], [], BOUND)[0], heard
        heard += os.read(fd, 4096)


def started(uml: Household, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(uml.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)


def run_side_by_side(uml: Household) -> None:
    """Three that wait for each other: one after the other they would wait for ever. And a signal to one of them."""
    scripts = ["until [ -e /tmp/2 ]; do sleep 0.1; done; echo 1", "until [ -e /tmp/3 ]; do sleep 0.1; done; >/tmp/2"]
    waiting = [started(uml, "exec", "it", "sh", "-c", script) for script in scripts]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        with started(uml, "exec", "it", "sh", "-c", "echo ready; exec sleep 1000") as sleeper:
            assert sleeper.stdout is not None
            assert sleeper.stdout.readline() == b"ready\n"
            sleeper.send_signal(number)
            assert sleeper.wait(BOUND) == 128 + number
    uml.ok("exec", "it", "--", "touch", "/tmp/3")
    for process in waiting:
        process.communicate(timeout=BOUND)
    assert [process.returncode for process in waiting] == [0, 0]
    # What is left running is that: it lives on, and holds nobody up.
    uml.ok("exec", "it", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $! >/tmp/left")
    assert uml.ok("exec", "it", "sh", "-c", "kill -0 $(cat /tmp/left) && echo alive") == "alive\n"


def run_on_terminal(uml: Household) -> None:
    for _ in range(2):  # a line that was left is as new
        with on_terminal(uml.command("exec", "-it", "it", "--", "sh", "-c", "stty size; stty raw; exec cat -v")) as it:
            it.see(rb"30 100\r\n")
            it.type(CTRL_C)
            it.see(rb"\^C")
            it.hang_up()
    with on_terminal(uml.command("exec", "-it", "it", "--", "sh", "-c", "PS1='$((40 + 2))> ' exec sh -i")) as it:
        it.see(rb"42> ")
        it.type(b"exit 5\n")
        assert it.end() == 5


def look(uml: Household) -> None:
    (found,) = uml.ps()
    assert (found["umid"], found["state"], found["root"], found["boots"]) == ("it", "running", "hostfs:/", 1)
    assert found["memory"] == 64 << 20
    assert 0 < found["used"] < 200 << 20
    assert found["cpu"] > 0
    assert "it " in uml.ok("ps")
    directory = uml.machines / "it"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert int((directory / "pid").read_text()) == found["pid"]
    assert "Linux version" in (directory / "log").read_text()
    assert uml.error("boot", "-d", "umid=it") == (
        1,
        f"it: a machine of that name is running (pid {found['pid']}); 'uml halt it' ends it; or choose another",
    )
    uml.lines("it", "con0", "Linux version")
    assert "virtio-fs root" in uml.ok("mconsole", "it", "devices")
    root, _disk = found["statistics"]
    assert (root["device"], root["written_bytes"]) == ("virtio-fs root", 0)
    assert root["read_bytes"] > 0
    assert uml.ok("mconsole", "it", "stats").startswith("virtio-fs root: ")
    historical = [needs.program("uml_mconsole"), str(directory / "mconsole"), "version"]
    done = subprocess.run(historical, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if uml.user is None:
        assert done.stdout.startswith(b"OK Linux")


def look_inside(uml: Household) -> None:
    """The machine's files, from the host and back, while it runs."""
    make = "mkdir /tmp/d; cd /tmp/d; echo a >a; chmod 640 a; ln a b; ln -s a c; truncate -s 3M holes; chown 7:8 holes"
    uml.ok("exec", "it", "sh", "-c", f"{make}; head -c 500000 /dev/urandom >big; mkfifo f")
    # More than the filer holds descriptors of.
    uml.ok("exec", "it", "sh", "-c", "mkdir -p /tmp/d/many/sub; cd /tmp/d/many; seq 600 | split -l 1 -a 3 - sub/")
    assert uml.ok("ls", "it:/tmp/d") == "a\nb\nbig\nc\nf\nholes\nmany\n"
    assert uml.ok("cat", "it:/tmp/d/c", "it:/proc/sys/kernel/hostname") == "a\nit\n"
    (record,) = json.loads(uml.ok("stat", "--json", "it:/tmp/d/holes"))
    assert (record["uid"], record["gid"], record["size"]) == (7, 8, 3 << 20)
    # There and back, it is the same.
    uml.uml("cp", "-r", "it:/tmp/d", "copied")
    assert (uml.home / "copied/a").stat().st_mode & 0o777 == 0o640
    assert uml.ok("cp", "-r", "--owner", "7:8", "copied", "it:/tmp/back") == ""
    contents = b"".join(path.read_bytes() for path in sorted((uml.home / "copied/many/sub").iterdir()))
    assert contents.split() == [b"%d" % number for number in range(1, 601)]
    check = "cd /tmp/back; cmp /tmp/d/big big; cat c; stat -c '%u:%g %s' holes"
    assert uml.ok("exec", "it", "sh", "-ec", check) == "a\n7:8 3145728\n"
    # Nobody takes the agent's own commands away.
    assert uml.ok("ls", "it:/run/umlfs/control") == ""
    assert uml.ok("ls", f"{uml.machines}/it/mconsole:/tmp/d") == uml.ok("ls", ".uml/it:/tmp/d")
    assert uml.error("ls", "it:1") == (2, "it: a machine, which has no partitions; leave it out")
    assert uml.error("cat", "it:/none") == (1, "it:/none: No such file or directory")


def plug(uml: Household) -> None:
    """Disks for the running guest: refused while in use, and where there is one already; what it writes is kept."""
    console = ["mconsole", "it"]
    assert uml.ok(*console, f"config ubd3={uml.home}/cow3,{uml.home}/image") == ""
    assert uml.ok(*console, "config ubdd") == f"{uml.home}/cow3,{uml.home}/image\n"
    make = "mke2fs -qF /dev/ubdd && mount -t ext2 /dev/ubdd /mnt && echo written >/mnt/file && blockdev --getsize64"
    assert uml.ok("exec", "it", "sh", "-ec", f"{make} /dev/ubdd") == "1048576\n"
    assert uml.error(*console, "remove ubd3") == (1, "Device is currently open: mounted on /mnt")
    (found,) = uml.ps()
    assert found["devices"] == ["ubd ubd1=cow,image", f"ubd ubd3={uml.home}/cow3,{uml.home}/image"]
    assert found["statistics"][-1]["device"] == "virtio-blk ubdd"
    uml.ok("exec", "it", "umount", "/mnt")
    hold_and_remove(uml, "ubd3")
    merge(f"{uml.home}/cow3", f"{uml.home}/merged3")
    assert b"written\n" in (uml.home / "merged3").read_bytes()
    plug_read_only(uml)


def hold_and_remove(uml: Household, name: str) -> None:
    """A disk goes once nobody has it open."""
    hold = f"exec 3</dev/ubd{'abcd'[int(name[3:])]}; echo open; read line"
    with subprocess.Popen(
        uml.command("exec", "-i", "it", "sh", "-c", hold), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"open\n"
        assert uml.error("mconsole", "it", f"remove {name}")[1].startswith("Device is currently open: by process ")
        user.communicate(b"\n", timeout=BOUND)
    assert uml.ok("mconsole", "it", f"remove {name}") == ""


def plug_read_only(uml: Household) -> None:
    """With partitions, of which one is swapped on meanwhile."""
    console = ["mconsole", "it"]
    disk = uml.home / "disk"
    disk.write_bytes(b"")
    os.truncate(disk, 4 << 20)
    subprocess.run([needs.program("sfdisk"), "-q", disk], input=b"label: dos\n2048,2048\n4096\n", check=True)
    if uml.user is not None:
        os.chown(disk, uml.user.uid, uml.user.gid)
    assert uml.ok(*console, f"config ubd4t={disk}") == ""
    trim = "cat /sys/block/$(readlink /dev/ubde)/queue/discard_max_bytes"
    assert uml.ok("exec", "it", "sh", "-ec", f"mkswap /dev/ubde1 >/dev/null; swapon /dev/ubde1; {trim}") == "0\n"
    assert uml.error(*console, "remove ubd4") == (1, "Device is currently open: by the guest's kernel")
    assert uml.ok("exec", "it", "sh", "-ec", "swapoff /dev/ubde1; echo end | dd of=/dev/ubde2 status=none") == ""
    assert uml.ok(*console, "remove ubd4") == ""
    before = disk.read_bytes()
    assert before[4096 * 512 :][:4] == b"end\n"
    assert uml.ok(*console, f"config ubd4r={disk}") == ""
    # The guest may forget that it is read-only, but it is.
    write = "! echo x >/dev/ubde2; blockdev --setrw /dev/ubde; ! dd if=/proc/version of=/dev/ubde2 conv=fsync"
    uml.ok("exec", "it", "sh", "-ec", f"{{ {write}; }} 2>/dev/null")
    assert disk.read_bytes() == before
    assert uml.ok(*console, "remove ubd4") == ""
    assert uml.uml("exec", "it", "sh", "-c", "ls /dev/ubd[de]*").stdout == b""


def plug_directory(uml: Household) -> None:
    """A directory for the running guest: refused while in use, and where there is no room."""
    console = ["mconsole", "it"]
    assert uml.ok(*console, f"config hostfs1={uml.home}:ro") == ""
    assert uml.ok(*console, "config hostfs1") == f"{uml.home}:ro\n"
    with subprocess.Popen(
        uml.command("exec", "-i", "it", "sh", "-c", "cd /mnt/hostfs1 && ! touch disk 2>/tmp/why; cat /tmp/why; read x"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as user:
        assert user.stdout is not None
        assert b"Read-only file system" in user.stdout.readline()
        assert "busy" in uml.error(*console, "remove hostfs1")[1]
        user.communicate(b"\n", timeout=BOUND)
    assert uml.ok(*console, "remove hostfs1") == ""
    notes = uml.home / "notes"
    for _ in range(2):  # a single file, where a directory was
        notes.write_text("one\n")
        if uml.user is not None:
            os.chown(notes, uml.user.uid, uml.user.gid)
        assert uml.ok(*console, f"config hostfs1={notes}") == ""
        script = "cat /mnt/hostfs1; ls -d /mnt/hostfs*; stat -c %u /mnt/hostfs1; echo two >/mnt/hostfs1"
        assert uml.ok("exec", "it", "sh", "-ec", script) == "one\n/mnt/hostfs1\n0\n"
        assert uml.ok(*console, "remove hostfs1") == ""
        assert notes.read_text() == "two\n"
    assert uml.ok(*console, f"config hostfs1={uml.home}") == ""
    assert uml.ok("exec", "it", "sh", "-ec", "cat /mnt/hostfs1/notes; stat -c %u /mnt/hostfs1") == "two\n0\n"
    assert uml.ok(*console, "remove hostfs1") == ""


def image(uml: Household) -> None:
    """What a COW file can be over."""
    (uml.home / "image").write_bytes(bytes(range(256)) * 4096)


def copy_disks(uml: Household) -> None:
    """A snapshot holds what was written before it, and nothing that was written later."""
    uml.ok("exec", "it", "sh", "-c", "echo before >/dev/ubdb")
    (copy,) = uml.ok("mconsole", "it", "snapshot").splitlines()
    uml.ok("exec", "it", "sh", "-c", "echo later! >/dev/ubdb; sync")
    assert copy.startswith(f"{uml.home}/cow.2")
    assert worst(check(copy)) in (None, Severity.NOTE)
    merge(copy, f"{uml.home}/merged")
    assert (uml.home / "merged").read_bytes() == b"before\n" + (uml.home / "image").read_bytes()[7:]


def pause(uml: Household) -> None:
    uml.ok("stop", "it")
    assert uml.ps()[0]["state"] == "stopped"
    assert uml.error("stop", "it")[0] == 1
    assert uml.error("ls", "it:/") == (1, "the machine is stopped; try again when it runs")
    uml.ok("go", "it")
    assert uml.ok("exec", "it", "echo", "again") == "again\n"
    assert uml.ps()[0]["state"] == "running"


def restart(uml: Household) -> None:
    for boots, command in ((2, ["reboot", "it"]), (3, ["reboot", "--now", "it"]), (4, ["cad", "it"])):
        uml.ok(*command)
        assert eventually(lambda: [(each["boots"], each["state"]) for each in uml.ps()] == [(boots, "running")])  # noqa: B023
    assert uml.ok("exec", "it", "sh", "-c", "[ -e /tmp/2 ] || echo new") == "new\n"


def test_the_guest_halts(me: Household) -> None:
    """In the foreground: the exit status is the guest's, and what it wrote to its root is there."""
    root = me.home / "root"
    for name in ("bin", "proc", "sys", "dev", "run", "tmp", "sbin"):
        (root / name).mkdir(parents=True)
    busybox = root / "bin/busybox"
    busybox.write_bytes(Path(needs.program("busybox")).read_bytes())
    busybox.chmod(0o755)
    (root / "sbin/init").write_text(
        '#!/bin/busybox sh\nmount -t proc p /proc\necho "$*" $color >/words\necho 3 >/proc/exitcode\npoweroff -f\n'
    )
    (root / "sbin/init").chmod(0o755)
    done = me.uml("boot", "--root", root, "mem=64M", "two", "words", "color=red")
    assert (done.returncode, done.stderr) == (3, b"")
    assert (root / "words").read_text() == "two words red\n"


def test_a_shell_as_init(me: Household) -> None:
    """In the foreground, on a terminal."""
    with on_terminal(me.command("boot", "mem=64M", "init=/bin/sh", "quiet")) as it:
        it.see(rb"[#$] ")
        it.type(b"echo $((6 * 7)) $$; mkdir /tmp/x && exec /bin/busybox poweroff -f\n")
        it.see(rb"42 1\r\n")
        assert it.end() == 0


def test_a_guest_that_restarts_with_noreboot(me: Household) -> None:
    me.ok("boot", "-d", "umid=once", "mem=64M", "noreboot")
    me.ok("reboot", "--now", "once")
    assert eventually(lambda: me.ps() == [])


def test_an_initrd_of_somebody_else(me: Household) -> None:
    """It is the whole guest: there is no agent, but consoles and management console work."""
    init = b"#!/bin/busybox sh\nbusybox mount -t proc p /proc\nread -r words </proc/cmdline\necho ${words##* root=}\n"
    kernel = find_kernel()
    image = me.home / "initrd"
    shutil.copyfile(build(kernel, (), init + b"exec sleep 1000\n", find_busybox(), scratch=me.home), image)
    words = ("umid=own", "mem=64M", "initrd=initrd", "root=/dev/theirs")
    assert me.ok("boot", "-d", "--jail=strict", *words) == "own\n"
    me.lines("own", "con0", "/dev/theirs")
    assert me.ps()[0]["root"] == "initrd initrd"
    why = "the guest has no agent: it was booted by an initrd= of its own; use its consoles"
    assert me.error("exec", "own", "true") == (125, why)
    assert me.error("ls", "own:/") == (1, why)
    (me.home / "disk").write_bytes(bytes(4096))
    why = "uml: ubdd: the kernel's jail does not show it files that it was not booted with; name it at boot"
    assert me.uml("mconsole", "own", "config ubd3=disk").stderr.decode().startswith(why)
    me.ok("halt", "--now", "own")
    me.ok("boot", "-d", "--jail=off", *words)
    driver = "the guest has no agent: its kernel's own driver has the disk, and writes it through\n"
    assert me.ok("mconsole", "own", "config ubd3=disk") == driver
    me.ok("halt", "--now", "own")
    assert me.error("boot", "-d", "initrd=/nowhere")[0] == 1


def test_panic(me: Household) -> None:
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(f"{me.home}/heard")
    hook = 'nproc >processors; echo "$UML_UMID $UML_EVENT $UML_TEXT" >panicked'
    me.ok("boot", "-d", "umid=bad", "mem=64M", "--on-panic", hook, f"mconsole=notify:{me.home}/heard")
    me.uml("exec", "bad", "sh", "-c", "echo c >/proc/sysrq-trigger")
    assert eventually(lambda: me.ps() == [] and (me.home / "panicked").exists())
    assert eventually(lambda: "bad panic sysrq triggered crash" in (me.home / "panicked").read_text())
    assert int((me.home / "processors").read_text()) == len(os.sched_getaffinity(0))
    assert "Kernel panic" in (me.machines / ENDED / "bad/log").read_text()
    with heard:
        told = [decode_notification(heard.recv(4096)) for _ in range(2)]
    assert [each.kind for each in told] == [NoticeKind.BOOT, NoticeKind.PANIC]
    assert told[0].text == str(me.machines / "bad/mconsole")
    # The name is free again.
    me.ok("boot", "-d", "umid=bad", "mem=64M")
    me.ok("halt", "--now", "bad")
    assert eventually(lambda: [path.name for path in me.machines.iterdir()] == [ENDED])


def test_killed(me: Household) -> None:
    """Nothing is left but the directory, which the next of that name takes over; and SIGTERM ends in order."""
    me.ok("boot", "-d", "umid=it", "mem=64M", "--hang-after", "1", "--on-hang", 'echo "$UML_TEXT" >hung')
    (found,) = me.ps()
    hang(me, found["kernel"])
    assert me.error("rm", "it") == (1, "it: is running; 'uml halt it' ends it")
    os.kill(found["pid"], signal.SIGKILL)
    assert eventually(lambda: not os.path.exists(f"/proc/{found['kernel']}"))
    assert me.ps() == []
    assert [each["how"] for each in json.loads(me.ok("ps", "-a", "--json"))] == ["killed"]
    assert "Linux version" in me.ok("logs", "it")
    me.ok("boot", "-d", "umid=it", "mem=64M")
    (found,) = me.ps()
    os.kill(found["pid"], signal.SIGTERM)
    assert eventually(lambda: not os.path.exists(f"/proc/{found['pid']}"))
    assert eventually(lambda: [path.name for path in me.machines.iterdir()] == [ENDED])


def hang(uml: Household, kernel: int) -> None:
    """A kernel that does nothing is found out, and so is that it goes on."""
    os.kill(kernel, signal.SIGSTOP)
    assert eventually(lambda: uml.ps()[0]["state"] == "hung")
    told = uml.home / "hung"
    assert eventually(lambda: told.exists() and told.read_text() == "the kernel does not answer for 1 s\n")
    os.kill(kernel, signal.SIGCONT)
    assert eventually(lambda: uml.ps()[0]["state"] == "running")


def test_a_machine_that_cannot_be(me: Household) -> None:
    """Every error is told before the command returns, and leaves nothing."""
    assert me.error("boot", "-d", "--root", "/nowhere")[0] == 2
    assert me.error("boot", "-d", "ubd0=/nowhere", "root=/dev/ubda")[0] == 1
    assert me.error("boot", "-d", "--root", "/")[0] == 2
    assert me.error("boot", "-d", "--init", "/nowhere") == (1, "/nowhere: no such program in the root to be its init")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert me.error("boot", "-d", f"con1=port:{taken.getsockname()[1]}")[0] == 1
    assert not me.machines.exists() or list(me.machines.iterdir()) == []
