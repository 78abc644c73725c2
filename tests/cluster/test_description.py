"""The file of a cluster: what it means, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime.cluster import checking
from runtime.cluster import description as clusters
from runtime.cluster.description import Shared
from runtime.cluster.joining import leave, threshold
from runtime.machines.description import Description
from umlfs.errors import UmlError


def written(tmp_path: Path, text: str, name: str = "mail.toml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


FULL = """
nodes = 3
dead_seconds = 12

[machine]
memory = "128M"
ubds = ["ubd1=own.img"]

[machine.network]
networks = ["user"]

[node.2]
memory = "512M"

[[shared]]
image = "a.img"
mount = "/a"

[[shared]]
image = "/b.img"
filesystem = "none"
"""


def test_a_file(tmp_path: Path) -> None:
    cluster = clusters.load(written(tmp_path, FULL))
    assert cluster.name == "mail"
    assert [node.umid for node in cluster.nodes] == ["mail-1", "mail-2", "mail-3"]
    assert [node.machine.memory >> 20 for node in cluster.nodes] == [128, 512, 128]
    assert cluster.nodes[1].machine.networks == ("user",)
    assert cluster.disks() == {2: Shared("a.img", "ocfs2", "/a"), 3: Shared("/b.img", "none")}
    assert [cluster.image(disk) for disk in cluster.shared] == [tmp_path / "a.img", Path("/b.img")]
    assert leave(cluster) == "sync\numount /a\n"
    assert threshold(cluster.dead_seconds) == 7


def test_what_init_writes_is_read_again(tmp_path: Path) -> None:
    machine = Description(root="debian.img", memory=512 << 20)
    text = clusters.encode(4, machine, [Shared("x.img", "ocfs2", "/shared")])
    cluster = clusters.load(written(tmp_path, text))
    assert [node.machine for node in cluster.nodes] == [machine] * 4
    assert cluster.shared == (Shared("x.img", "ocfs2", "/shared"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes = 0", "nodes = 0; a number from 1 to 32"),
        ("nodes = 33", "nodes = 33"),
        ("nodes = true", "nodes = True"),
        ("colour = 1", "unknown key 'colour'"),
        ("nodes = ", "no TOML"),
        ("[machine]\nmemory = '32M'", "memory = 32M is too little for a node"),
        ("[machine]\numid = 'x'", "'umid' is the cluster's to say"),
        ("[machine]\ncolour = 'x'", r"\[machine\]: unknown key 'colour'"),
        ("[machine]\ninitrd = 'x'", "a node has its root by 'root'"),
        ("machine = 1", "'machine' is not a table"),
        ("[node.3]\nmemory = '1G'", r"\[node.3\]: no such node; they are 1 to 2"),
        ("[node.x]\nmemory = '1G'", r"\[node.x\]: no such node"),
        ("shared = 1", "'shared' is not a list"),
        ("[[shared]]\nmount = '/x'", "name a file"),
        ("[[shared]]\nimage = 'a,b'", "name a file"),
        ("[[shared]]\nimage = 'a'\nfilesystem = 'ext4'", "nodes can have ocfs2 and none in common"),
        ("[[shared]]\nimage = 'a'\nfilesystem = 'gfs2'", "needs dlm_controld"),
        ("[[shared]]\nimage = 'a'\nmount = 'x'", "an absolute path"),
        ("[[shared]]\nimage = 'a'\nfilesystem = 'none'\nmount = '/x'", "for a disk with a filesystem"),
        ("[[shared]]\nimage = 'a'\nsize = 1", "it takes texts"),
        ("[[shared]]\nimage = 'a'\n[[shared]]\nimage = 'a'", "is there twice"),
        ("[[shared]]\nimage='a'\nmount='/x'\n[[shared]]\nimage='b'\nmount='/x'", "mount = '/x' is there twice"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UmlError, match=message) as caught:
        clusters.load(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_wrong_names(tmp_path: Path) -> None:
    for name in ("mail.txt", "Mail.toml", "user.toml", f"{'x' * 40}.toml"):
        with pytest.raises(UmlError):
            clusters.load(written(tmp_path, "nodes = 1", name))
    with pytest.raises(UmlError, match="'uml cluster init' makes one"):
        clusters.load(tmp_path / "none.toml")


def test_memory_is_that_of_the_nodes_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes back into a full host's cluster needs its own alone."""
    cluster = clusters.load(written(tmp_path, "nodes = 3\n"))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=100 << 20))
    monkeypatch.setattr("runtime.machines.directory.runs", lambda path: path.name == "mail-1")
    with pytest.raises(
        UmlError, match=r"2 nodes need [0-9]+M of memory, and this host has 100M left; have fewer nodes"
    ):
        checking.check_memory(cluster)
    monkeypatch.setattr("runtime.machines.directory.runs", lambda path: path.name != "mail-3")
    checking.check_memory(cluster)
