"""Building a Debian, and the walk-through of the documentation."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.images.build import _has_range, _source_lines
from runtime.images.formats import Format
from runtime.images.recipe import Recipe, commands, files, fstab, hashed
from runtime.kernels.kernel import find_kernel
from runtime.process.memory import memory_directory
from tests import needs
from tests.images.conftest import EPOCH, Walk, command, lines
from tests.ordinary import ROOT
from umlfs.errors import UsageError

LOGIN_SECONDS = 240


@pytest.mark.slow
@pytest.mark.guest
def test_the_walk_through(walk: Walk) -> None:
    for line, (status, _, errors) in walk.said.items():
        assert (status, errors) == (0, ""), line
    output = [said[1] for said in walk.said.values()]
    assert output[1] == "walker\n"
    assert output[3] == "/etc/shadow 640 root:shadow\n"
    assert output[6].endswith(" MiB given back\n")
    assert walk.image.stat().st_size == 3 << 30
    assert walk.image.stat().st_uid == (walk.caller.user.uid if walk.caller.user else os.geteuid())
    done = subprocess.run([needs.program("e2fsck"), "-fn", walk.image], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.guest
def test_it_boots_to_a_login(walk: Walk, tmp_path: Path) -> None:
    """With no more than the kernel: its own disk driver, and systemd in the guest."""
    image = tmp_path / "boot.img"
    subprocess.run(["cp", "--sparse=always", walk.image, image], check=True)
    kernel = find_kernel()
    line, end = pty.openpty()
    words = ["mem=256M", f"ubd0={image}", "root=/dev/ubda", "con=null", "ssl=null", "con0=fd:0,fd:1"]
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), "TMPDIR": str(memory_directory())}
    with subprocess.Popen(
        [kernel.path, *words, f"uml_dir={tmp_path}/"],
        stdin=end,
        stdout=end,
        stderr=end,
        start_new_session=True,
        env=environment,
    ) as process:
        os.close(end)
        try:
            expect(line, b"login:")
            os.write(line, b"root\n")
            expect(line, b"# ")
            os.write(line, b"systemctl --failed --no-legend; modprobe fuse && hostname; tty\n")
            said = expect(line, b"/dev/console\r\n")
            assert b"walker" in said
            assert b"failed" not in said.split(b"tty\r\n", 1)[-1]
            os.write(line, b"poweroff\n")
            expect(line, b"System halted")
            assert process.wait(LOGIN_SECONDS) == 0
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            os.close(line)


def expect(line: int, text: bytes) -> bytes:
    """What comes from a terminal until `text` has come."""
    said = b""
    deadline = time.monotonic() + LOGIN_SECONDS
    while text not in said:
        ready, _, _ = select.select([line], [], [], max(0, deadline - time.monotonic()))
        assert ready, said.decode(errors="replace")
        try:
            said += os.read(line, 65536)
        except OSError:
            raise AssertionError(said.decode(errors="replace")) from None
    return said


@pytest.mark.slow
def test_two_builds_are_identical(walk: Walk) -> None:
    for name in ("one.img", "two.img"):
        done = command(walk.caller, lines()[0].replace("debian.img", name))
        assert (done.returncode, done.stderr) == (0, "")
    subprocess.run(["cmp", "one.img", "two.img"], cwd=walk.caller.directory, check=True)


# Recipes --------------------------------------------------------------------------------------


def test_the_files_of_a_recipe_are_reproducible() -> None:
    recipe = Recipe("bookworm", ssh_key="ssh-ed25519 AAAAC3Nz somebody\n", epoch=int(EPOCH))
    assert files(recipe, Format.RAW) == files(recipe, Format.RAW)
    assert files(recipe, Format.RAW) != files(recipe, Format.HUMFS)
    assert "openssh-server" in recipe.packages


def test_tables_of_filesystems() -> None:
    assert "/dev/ubda / ext4" in fstab(Format.QCOW2)
    assert "virtiofs" in fstab(Format.HUMFS)
    assert [line for line in fstab(Format.TAR).splitlines() if not line.startswith("#")] == []


def test_passwords() -> None:
    assert hashed("", 5) == ""
    assert hashed("secret", 5) == hashed("secret", 5)
    assert hashed("secret", None) != hashed("secret", None)
    assert hashed("secret", None).startswith("$6$")
    last = list(commands(Recipe("bookworm", root_password="it's")))[-1]
    assert "usermod --password '$6$" in last


@pytest.mark.parametrize(
    "fields",
    [
        {"suite": "-o"},
        {"suite": "bookworm; rm"},
        {"suite": "bookworm", "include": ("a b",)},
        {"suite": "bookworm", "include": ("--x",)},
        {"suite": "bookworm", "hostname": "a b"},
        {"suite": "bookworm", "hostname": ""},
        {"suite": "bookworm", "ssh_key": "-----BEGIN OPENSSH PRIVATE KEY-----"},
    ],
)
def test_words_that_make_no_sense(fields: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Recipe(**fields)  # type: ignore[arg-type]


def test_the_sources_of_the_host() -> None:
    targets = [
        "deb\thttp://a/debian/\tbookworm\tmain\t/usr/share/keyrings/k.gpg",
        "deb\thttp://a/debian/\tbookworm\tmain\t/usr/share/keyrings/k.gpg",
        "deb\thttp://a/debian/\tbookworm\tcontrib\t/usr/share/keyrings/k.gpg",
        "deb-src\thttp://a/debian/\tbookworm\tmain\t",
        "deb\thttp://a/debian/\tbookworm-updates\tmain\t$(SIGNED_BY)",
        "deb\thttp://b/other/\tnodistro\tmain\t",
    ]
    assert list(_source_lines("bookworm", targets)) == [
        "deb [signed-by=/usr/share/keyrings/k.gpg] http://a/debian/ bookworm main contrib",
        "deb http://a/debian/ bookworm-updates main",
    ]
    assert list(_source_lines("trixie", targets)) == []


def test_subordinate_ids(tmp_path: Path) -> None:
    table = tmp_path / "subuid"
    assert not _has_range(table, "somebody")
    table.write_text("nobody:1:2\nsomebody:100000:65536\n")
    assert _has_range(table, "somebody")
    assert not _has_range(table, "some")


@pytest.mark.slow
def test_a_suite_that_does_not_exist(walk: Walk) -> None:
    done = command(walk.caller, "uml image build none.img --suite nosuchsuite --root-password ''")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "uml: mmdebstrap could not make nosuchsuite; its last words are above"
    assert not (walk.caller.directory / "none.img").exists()


def test_a_build_that_signals_its_group(tmp_path: Path) -> None:
    """As mmdebstrap does when it fails: the caller's shell is in none of our programs' groups. Nothing stays behind."""
    program, scratch = tmp_path / "bin/mmdebstrap", tmp_path / "scratch"
    program.parent.mkdir()
    scratch.mkdir()
    program.write_text('#!/bin/sh\necho "E: no such suite" >&2\ntouch "$TMPDIR/keys"\nkill -HUP 0\nsleep 10\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "TMPDIR": str(scratch)}
    words = [
        sys.executable,
        "-c",
        "from runtime.cli import main; main()",
        "image",
        "build",
        str(tmp_path / "new.img"),
        "--suite",
        "bookworm",
    ]
    done = subprocess.run(
        words, env={**environment, "PYTHONPATH": str(ROOT)}, start_new_session=True, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-2:] == [
        "E: no such suite",
        "uml: mmdebstrap could not make bookworm; its last words are above",
    ]
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "new.img").exists()


@pytest.mark.parametrize("words", ["openssh-server", "openssh-server=1:9.2", "openssh-server:amd64"])
def test_a_server_that_is_included_makes_its_keys(words: str) -> None:
    """Those that came with the package are removed: each machine has its own."""
    assert b"ssh-keygen -A" in files(Recipe("bookworm", include=(words,), epoch=0), Format.EXT4)
    assert b"ssh-keygen -A" not in files(Recipe("bookworm", epoch=0), Format.EXT4)
