"""--mount: host directories at places in the guest."""

from __future__ import annotations

import pytest

from tests.guest.caller import Caller

pytestmark = pytest.mark.guest


@pytest.mark.kernels
def test_several_in_one_guest(caller: Caller) -> None:
    """Nested (given in the wrong order), over a directory, at a place with spaces, at one that has to be made, at one
    behind a symlink, and read-only."""
    caller.make("a", {"file": "a", "below/hidden": ""})
    caller.make("b", {"file": "b"})
    caller.make("spaced name", {"file": "c"})
    fixed = caller.make("fixed", {"file": "d"})
    mounts = [
        "/src/below=b",
        "/src=./a",
        "/usr/share/new/with space=spaced name",
        f"/opt=hostfs:{fixed}:ro",
        "/var/run/linked=b:ro",
        "/odd\n\udcff#\\=b:ro",
    ]
    script = """
    cat /src/file /src/below/file '/usr/share/new/with space/file' /opt/file /run/linked/file /odd*/file
    ls /src/below
    echo more >>/src/file; echo new >/src/below/new
    touch /opt/new && exit 1
    mount -o remount,rw /opt; touch /opt/new && exit 1
    rm -f /opt/file && exit 1
    exit 0
    """
    options = [word for mount in mounts for word in ("--mount", mount)]
    done = caller.run(*options, "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, b"abcdbbfile\n")
    assert done.stderr.count(b"Read-only file system") == 3
    assert (caller.directory / "a/file").read_text() == "amore\n"
    assert (caller.directory / "b/new").read_text() == "new\n"
    assert [path.name for path in fixed.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("mounts", "complaint"),
    [
        (["src=here"], "src: not a place to mount at; give an absolute path other than / in the guest"),
        (["/=here"], "/: not a place to mount at"),
        (["/a/..=here"], "/a/..: not a place to mount at"),
        (["//=here"], "//: not a place to mount at"),
        (["/proc=here"], "/proc: not a place to mount at; every guest has its own there"),
        (["/run/umlfs/x=here"], "every guest has its own there"),
        (["/src"], "--mount /src: not of the form DIR=SRC[:OPTION]"),
        (["=here"], "not of the form"),
        (["/src="], "not of the form"),
        (["/src=nowhere"], "nowhere: no such file or directory"),
        (["/src=madeup:here"], "unknown kind of source 'madeup'"),
        (["/src=here", "/src/=here"], "/src/: two things to mount there"),
    ],
)
def test_wrong_usage(me: Caller, mounts: list[str], complaint: str) -> None:
    me.make("here", ["file"])
    status, line = me.error(*(word for mount in mounts for word in ("--mount", mount)), "--", "true")
    assert status == 2
    assert complaint in line


@pytest.mark.parametrize(
    ("mounts", "place", "why"),
    [
        (["/etc/passwd=here"], "/etc/passwd", "the guest cannot mount anything there: "),
        (["/proc/new=here"], "/proc/new", "the guest cannot mount anything there: "),
        (["/a=here", "/a/b=here"], "/a/b", "no such directory in what is mounted there; make it first"),
    ],
)
@pytest.mark.kernels
def test_impossible_places(me: Caller, mounts: list[str], place: str, why: str) -> None:
    here = me.make("here")
    status, line = me.error(*(word for mount in mounts for word in ("--mount", mount)), "--", "true")
    assert status == 125
    assert line.startswith(f"{place}: {why}")
    assert list(here.iterdir()) == []
