"""A host directory through hostfs, FUSE, virtio, the guest's kernel and its caches, used from inside the guest."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.filesystem import CHECKS, Features
from tests.guest import operations
from tests.guest.caller import BOUND, Caller
from tests.hostfs.features import features_of
from tests.ordinary import ROOT, copied_checks

pytestmark = pytest.mark.guest

LONG_AS_AN_ORDINARY_USER = pytest.mark.parametrize(
    "caller", ["as we are", pytest.param("as an ordinary user", marks=pytest.mark.slow)], indirect=True
)


@LONG_AS_AN_ORDINARY_USER
@pytest.mark.kernels
def test_what_programs_do(caller: Caller) -> None:
    place = caller.make("place")
    script = Path(operations.__file__).read_bytes()
    xattrs = ["user"] if features_of(place).xattrs == b"user." else []
    done = caller.run("--mount", "/mnt=place", "--", caller.python, "-", "/mnt", *xattrs, input=script)
    assert done.stderr.decode() == ""
    assert done.stdout.decode().splitlines() == [f"holds: {each.__name__}" for each in operations.OPERATIONS]
    with (place / "shared_mapping_writes_through/file").open("rb") as file:
        assert file.read()[4096:4101] == b"Jello"
    assert os.stat(place / "links/second").st_ino == os.stat(place / "links/link").st_ino


def features(caller: Caller, place: Path) -> Features:
    found = features_of(place)
    return found if caller.user is None else replace(found, owners=False, devices=False)


def search_path(caller: Caller) -> str:
    """Where Python finds the checks inside the guest: copies, for an ordinary user."""
    if caller.user is None:
        return str(ROOT)
    copies = copied_checks(caller.directory / "copies")
    caller.own(copies)
    return ":".join(map(str, (copies, *caller.user.path)))


@LONG_AS_AN_ORDINARY_USER
@pytest.mark.kernels
def test_contract(caller: Caller) -> None:
    """Every check of `Filesystem`, by POSIX calls."""
    place = caller.make("place")
    found = features(caller, place)
    words = [f"{name}={getattr(found, name)!r}" for name in ("owners", "devices", "zero_range", "xattrs")]
    owner = place.stat()
    words += [f"uid={owner.st_uid}", f"gid={owner.st_gid}"]
    path = search_path(caller)
    options = ["--mem", "512M", "--mount", "/mnt=place", "--env", f"PYTHONPATH={path}"]
    line = caller.command("run", *options, "--", caller.python, "-m", "tests.contract.posix", "/mnt", *words)
    done = caller.finish(line, seconds=4 * BOUND)
    assert done.stderr.decode() == ""
    assert done.stdout.decode() == f"{len(CHECKS)} of {len(CHECKS)} hold\n"


def test_walking_a_large_tree_holds_few_descriptors(me: Caller, long: bool) -> None:
    """All files are known to the guest at the end, and few are open on the host."""
    directories, limit = (2000, 4096) if long else (100, 210)
    tree = me.make("tree")
    for number in range(directories):
        (tree / str(number)).mkdir()
        for name in range(100):
            os.close(os.open(tree / str(number) / str(name), os.O_CREAT | os.O_WRONLY))
    script = "find /mnt -type f -size 0 | wc -l; read -r line"

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    options = ["--mem", "1G", "--mount", "/mnt=tree:ro"]
    with me.started(*options, "--", "sh", "-c", script, preexec_fn=few) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"%d\n" % (directories * 100)
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < limit
        process.communicate(b"\n", BOUND)
        assert process.returncode == 0
