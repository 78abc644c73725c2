"""Container images as sources: in a layout, and in a registry on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from humfs.image import REF_NAME
from runtime.containers import layouts, reference
from runtime.containers.run_config import RunConfig, read_run_config
from tests import needs
from tests.containers.registry import PASSWORD, USER, registry
from tests.guest.caller import caller_as
from tests.images.making import make
from umlfs import sources
from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import ROOT, Filesystem
from umlfs.sources import OpenOptions

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("word", "image", "rest"),
    [
        ("docker://alpine", "docker://alpine", None),
        ("docker://alpine:/etc", "docker://alpine", "/etc"),
        ("docker://alpine:3.20:/etc", "docker://alpine:3.20", "/etc"),
        ("docker://localhost:5000/a/b:t", "docker://localhost:5000/a/b:t", None),
        (f"docker://[::1]:5000/a@{DIGEST}:/x:y", f"docker://[::1]:5000/a@{DIGEST}", "/x:y"),
        ("nbd://host:10809/name:/x", "nbd://host:10809/name", "/x"),
    ],
)
def test_where_a_name_ends(word: str, image: str, rest: str | None) -> None:
    source, found = sources.split(word)
    assert (str(source), found) == (image, rest)


@pytest.mark.parametrize("word", ["", "//", "alpine", "//alpine@sha256:12", "//a b", "//x/:tag", "//-x"])
def test_no_names(word: str) -> None:
    with pytest.raises(UsageError, match="no name of an image; write docker://NAME:TAG"):
        reference.parse(word)


def test_which_registries_are_near() -> None:
    near = {"localhost/x", "localhost:5000/x", "127.0.0.2:1/x", "[::1]:80/x"}
    far = {"x", "example.org/x", "10.0.0.1:5000/x", "localhost.example.org/x"}
    assert {name for name in near | far if reference.parse(f"//{name}").is_near} == near


async def contents(filesystem: Filesystem, name: bytes) -> bytes:
    """Of a file in the root, and the filesystem is closed."""
    try:
        entry = await filesystem.lookup(ROOT, name)
        handle = await filesystem.open(entry.attr.ino, os.O_RDONLY)
        data = bytearray(entry.attr.size)
        await filesystem.read_into(entry.attr.ino, handle.handle, 0, [memoryview(data)])
        return bytes(data)
    finally:
        await filesystem.close()


async def read(word: str) -> bytes:
    return await contents(await sources.parse(word).filesystem(OpenOptions(read_only=True)), b"greeting")


async def image(path: Path, text: str) -> Path:
    """A layout with one file of its own, and one that all have."""
    tree = path / f"{text}.tree"
    tree.mkdir()
    (tree / "greeting").write_text(text)
    return await make(tree, path / f"{text}.oci")


async def test_a_layout(tmp_path: Path) -> None:
    """A container image on this host, one of several, and what is no image."""
    one, two = await image(tmp_path, "one"), await image(tmp_path, "two")
    both = tmp_path / "both"
    for layout, name in ((one, "first"), (two, "second")):
        copied = [needs.program("skopeo"), "copy", "-q", f"oci:{layout}", f"oci:{both}:{name}"]
        subprocess.run(copied, check=True)
    assert await read(f"oci:{one}") == b"one"
    assert await read(f"oci:{both}:second") == b"two"
    saved = tmp_path / "saved.tar"
    subprocess.run([needs.program("skopeo"), "copy", "-q", f"oci:{two}", f"docker-archive:{saved}:x:y"], check=True)
    assert await read(f"oci:{saved}") == b"two"
    with pytest.raises(UmlError, match="the layout has several images: first, second"):
        await read(f"oci:{both}")
    with pytest.raises(UmlError, match="a directory, but no OCI image layout"):
        await read(f"oci:{tmp_path}")


async def test_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are fetched once, also by another name; a tag that moved is seen; what is damaged is fetched again; and
    what is named by its digest needs no registry."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, two = await image(tmp_path, "one"), await image(tmp_path, "two")
    with registry(tmp_path / "registry") as there:
        there.put(one, "box/one:v1")
        there.put(one, "other")
        before = len(there.fetched())
        assert await read(there.word("box/one:v1")) == b"one"
        first = len(there.fetched())
        assert first == before + 2, "a layer and a configuration"
        assert await read(there.word("other")) == b"one"
        assert await read(there.word("box/one:v1")) == b"one"
        assert len(there.fetched()) == first
        there.put(two, "box/one:v1")
        assert await read(there.word("box/one:v1")) == b"two"
        made = await make(there.word("other"), tmp_path / "made.oci")
        [entry] = json.loads((made / "index.json").read_text())["manifests"]
        assert entry["annotations"][REF_NAME] == f"localhost:{there.port}/other"

        [layout] = (tmp_path / "cache").glob("umlfs/containers/layout")
        for blob in layout.glob("blobs/*/*"):
            blob.write_bytes(b"damaged")
        assert await contents_of_tar(await make(there.word("other"), tmp_path / "again.tar")) == b"one"
        for damage in ("", "{", '{"manifests": 5}'):
            (layout / "index.json").write_text(damage)
            assert await read(there.word("other")) == b"one"
        with pytest.raises(UmlError, match=r"skopeo cannot fetch it: .*manifest unknown; see that there"):
            await read(there.word("none"))
        [entry] = json.loads((layout / "index.json").read_text())["manifests"]
    name = there.word("other").removesuffix(":latest")
    assert await read(f"{name}@sha256:{entry['annotations'][REF_NAME]}") == b"one"
    with pytest.raises(UmlError, match="connection refused; see that the registry can be reached"):
        await read(there.word("other"))
    assert not list((tmp_path / "cache").rglob(".uml-*"))


async def contents_of_tar(path: Path) -> bytes:
    return await contents(await sources.parse(str(path)).filesystem(), b"greeting")


async def test_few_are_kept(tmp_path: Path) -> None:
    """Those used last, and no blob that is of another one."""
    layout = tmp_path / "layout"
    for number in range(3):
        made = await image(tmp_path, str(number))
        subprocess.run([needs.program("skopeo"), "copy", "-q", f"oci:{made}", f"oci:{layout}:n{number}"], check=True)
    (layout / "oci-put-blob123").write_bytes(b"half of one")
    layouts.keep(layout, "n0", 2)
    assert [layouts.is_whole(layout, f"n{number}") for number in range(3)] == [True, False, True]
    assert len(list(layout.glob("blobs/*/*"))) == 6
    assert not list(layout.glob("oci-put-blob*"))


CONFIG = {
    "Env": ["GREETING=a b", "WHO=root"],
    "WorkingDir": "/etc",
    "User": "0",
    "Entrypoint": ["sh", "-c", 'echo "$WHO:$PWD:$GREETING:$(id -u):$*"', "sh"],
    "Cmd": ["x", "y"],
}


def configure(layout: Path, config: object) -> None:
    """Have the only image of a layout say how it is to be run."""
    blobs = layout / "blobs/sha256"

    def replaced(digest: str, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        document = json.loads((blobs / digest.partition(":")[2]).read_text())
        change(document)
        data = json.dumps(document).encode()
        name = hashlib.sha256(data).hexdigest()
        (blobs / name).write_bytes(data)
        return {"digest": f"sha256:{name}", "size": len(data)}

    index = json.loads((layout / "index.json").read_text())
    [entry] = index["manifests"]
    entry.update(
        replaced(
            entry["digest"],
            lambda manifest: manifest["config"].update(
                replaced(manifest["config"]["digest"], lambda document: document.update(config=config))
            ),
        )
    )
    (layout / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (5, "config"),
        ({"Env": ["NOTHING"]}, "Env"),
        ({"Env": "A=1"}, "Env"),
        ({"Env": ["A=\0"]}, "Env"),
        ({"Cmd": [5]}, "Cmd"),
        ({"Entrypoint": {"a": 1}}, "Entrypoint"),
        ({"User": ":5"}, "User"),
        ({"User": ["root"]}, "User"),
        ({"WorkingDir": "/\0"}, "WorkingDir"),
    ],
)
async def test_configs_that_are_damaged(tmp_path: Path, config: object, what: str) -> None:
    layout = await image(tmp_path, "one")
    configure(layout, config)
    with pytest.raises(UmlError, match=f"oci:.*: the image's config is damaged: {what}; have the image made again"):
        await read_run_config(f"oci:{layout}")


async def test_what_a_config_says(tmp_path: Path) -> None:
    layout = await image(tmp_path, "one")
    configure(layout, {"Env": ["A=b=c", "a.b=1"], "WorkingDir": "srv", "User": "app:web", "Cmd": None})
    found = await read_run_config(f"oci:{layout}")
    assert found == (f"oci:{layout}", RunConfig({"A": "b=c"}, "/srv", "app", "web", [], ["a.b"]))
    assert await read_run_config(str(tmp_path)) is None


@pytest.mark.guest
async def test_a_guest_on_an_image(tmp_path: Path) -> None:
    """A root from a registry that asks for a password, which is where skopeo looks for it. Changes are the guest's."""
    tree = tmp_path / "tree"
    for name in ("bin", "etc"):
        (tree / name).mkdir(parents=True)
    (tree / "bin/sh").write_bytes(Path(needs.program("busybox")).read_bytes())
    (tree / "bin/sh").chmod(0o755)
    (tree / "etc/motd").write_text("from a registry\n")
    layout = await make(tree, tmp_path / "image.oci")
    configure(layout, CONFIG)
    credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with registry(tmp_path / "registry", password=True) as there, caller_as(None) as caller:
        there.put(layout, "box", f"--dest-creds={USER}:{PASSWORD}")
        caller.variables |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "REGISTRY_AUTH_FILE": str(tmp_path / "auth")}
        script = "read line < /etc/motd; echo more > /etc/new && echo $line"
        words = ["--root", there.word("box"), "--", "sh", "-c", script]
        status, said = caller.error(*words)
        assert status == 125
        assert said.endswith("log in with 'skopeo login', or see that there is such an image")
        known = {"auths": {f"localhost:{there.port}": {"auth": credentials}}}
        (tmp_path / "auth").write_text(json.dumps(known))
        assert caller.output(*words) == "from a registry\n"
        assert caller.output(*words[:2]) == "root:/etc:a b:0:x y\n"
        said = caller.output("--user", "12", "--pwd", "/bin", "--env", "GREETING=c", *words[:2])
        assert said == "root:/bin:c:12:x y\n"
        status, said = caller.error("--rw", *words)
        assert (status, said.partition("; ")[2]) == (
            2,
            "leave out --rw (with boot, say --throwaway), or make a root of it: 'uml image convert'",
        )
