"""Words of the command line, and places in a guest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.machine import parsing
from runtime.machine.equipment import HostMount
from runtime.machine.mount_points import check_places
from umlfs.errors import UsageError

DIGEST = "0" * 64


def write_layout(place: Path, *names: str) -> None:
    """An OCI layout of empty images that are called so."""
    manifest = json.dumps({"schemaVersion": 2, "layers": []}).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    (place / "blobs/sha256").mkdir(parents=True)
    (place / "blobs/sha256" / digest).write_bytes(manifest)
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": f"sha256:{digest}"}
    named = [{**entry, "annotations": {"org.opencontainers.image.ref.name": name}} for name in names]
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": named}))


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/src=.", lambda: HostMount("/src", ".")),
        ("/src=./a=b", lambda: HostMount("/src", "./a=b")),
        ("/src=hostfs:/x:ro", lambda: HostMount("/src", "hostfs:/x", True)),
        ("/a b=c d:ro", lambda: HostMount("/a b", "c d", True)),
        ("/src=x:rw", lambda: HostMount("/src", "x")),
        ("/src=x:ro:rw", lambda: HostMount("/src", "x")),
        ("/src=.:rw", lambda: HostMount("/src", ".")),
        ("/src=x:ro:y:ro", lambda: HostMount("/src", "x:ro:y", True)),
        ("/src=x:cache=never", lambda: HostMount("/src", "x", options=(("cache", "never"),))),
        ("/src=x:ro:cache=always", lambda: HostMount("/src", "x", True, (("cache", "always"),))),
        ("/src=x:cache=auto:ro", lambda: HostMount("/src", "x", True, (("cache", "auto"),))),
        ("/src=x:cache=often", lambda: HostMount("/src", "x", options=(("cache", "often"),))),
        ("/log=x:append", lambda: HostMount("/log", "x", options=(("append", ""),))),
        ("/src=x:uid=5:gid=6:ro", lambda: HostMount("/src", "x", True, (("gid", "6"), ("uid", "5")))),
        (
            "/src=x:map=0:1000:1:map=5:7:9:squash",
            lambda: HostMount("/src", "x", options=(("squash", ""), ("map", "0:1000:1\n5:7:9"))),
        ),
        ("/src=x:hide=*.o:hide=.git", lambda: HostMount("/src", "x", options=(("hide", "*.o\n.git"),))),
        ("/src=humfs:x:atime=noatime", lambda: HostMount("/src", "humfs:x", options=(("atime", "noatime"),))),
        ("/src=nbd://host:10809/append", lambda: HostMount("/src", "nbd://host:10809/append")),
        ("/src=nbd://host:10809/x:ro", lambda: HostMount("/src", "nbd://host:10809/x", True)),
        ("/src=nbd://[::1]:10809:ro", lambda: HostMount("/src", "nbd://[::1]:10809", True)),
        ("/src=hostfs:x:ro:y:ro", lambda: HostMount("/src", "hostfs:x:ro:y", True)),
        ("/src=hostfs:x:ro", lambda: HostMount("/src", "hostfs:x:ro")),
        ("/src=docker://x:ro", lambda: HostMount("/src", "docker://x:ro")),
        ("/src=docker://x:append:ro", lambda: HostMount("/src", "docker://x:append", True)),
        ("/src=docker://host:5000/team/x:3.20:ro", lambda: HostMount("/src", "docker://host:5000/team/x:3.20", True)),
        (f"/src=docker://x@sha256:{DIGEST}:ro", lambda: HostMount("/src", f"docker://x@sha256:{DIGEST}", True)),
        ("/src=oci:image:ro", lambda: HostMount("/src", "oci:image:ro")),
        ("/src=oci:image:ro:ro", lambda: HostMount("/src", "oci:image:ro", True)),
        ("/src=oci:image:rw", lambda: HostMount("/src", "oci:image")),
        ("/src=oci:image:3.20:ro", lambda: HostMount("/src", "oci:image:3.20", True)),
    ],
)
def test_mounts(text: str, mount: Callable[[], HostMount], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a=b", "c d", "x", "x:ro:y", "image"):
        Path(name).mkdir()
    if "hostfs:x" in text:
        Path("x:ro").mkdir()
    write_layout(Path("image"), "ro", "3.20")
    expected = mount()
    assert parsing.mount(text) == expected
    assert parsing.mount(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "/src", "=x", "/src=", "="])
def test_no_mounts(text: str) -> None:
    with pytest.raises(UsageError, match="not of the form DIR=SRC"):
        parsing.mount(text)


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRESENT", "a=b")
    monkeypatch.delenv("ABSENT", raising=False)
    given = ["A=", "B=x=y", "PRESENT", "ABSENT", "A=2"]
    assert parsing.variables(given) == {
        "A": "2",
        "B": "x=y",
        "PRESENT": "a=b",
    }
    for text in ("", "=", "1A=x", "A-B", "A\n=x", "é=x"):
        with pytest.raises(UsageError, match="is not the name of a variable"):
            parsing.variables([text])


def test_directories() -> None:
    assert parsing.directory(None) is None
    assert parsing.directory("/a b") == "/a b"
    for text in ("", ".", "a"):
        with pytest.raises(UsageError, match="not an absolute path"):
            parsing.directory(text)


def test_places() -> None:
    check_places(["/src", "/src/below", "/run/user", "/dev/shm", "/tmp", "/a/../b"])
    for place in ("", "src", ".", "/", "//", "/a/..", "/proc", "/dev/", "/run/../sys", "/run/umlfs", "/run/umlfs/x"):
        with pytest.raises(UsageError, match="not a place to mount at"):
            check_places(["/ok", place])
    with pytest.raises(UsageError, match="two things"):
        check_places(["/a/b", "/a/../a//b/"])
