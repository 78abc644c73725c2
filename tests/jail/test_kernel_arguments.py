"""What words of the kernel's command line grant."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.jail.grants import Grants
from runtime.jail.kernel_arguments import grant_words
from umlfs.errors import UsageError


def granted(*words: str) -> Grants:
    grants = Grants()
    grant_words(grants, words)
    return grants


def test_nothing() -> None:
    assert granted("quiet", "debug", "rootfstype=ext4", "ubd0=/file") == Grants()


def test_hostfs(tmp_path: Path) -> None:
    for words in ([f"hostfs={tmp_path},append"], ["rootfstype=hostfs", f"rootflags={tmp_path}"]):
        found = granted(*words)
        assert (found.write, found.hostfs, bool(found.keep_user)) == ([tmp_path], True, True)


@pytest.mark.parametrize(
    "words", [["hostfs=/"], ["hostfs=//"], ["rootfstype=hostfs"], ["hostfs=here"], ["hostfs=/tmp/.."]]
)
def test_hostfs_of_the_whole_host(words: list[str]) -> None:
    with pytest.raises(UsageError, match="this host's whole root; name a directory of it, use --root"):
        granted(*words)


def test_iomem(tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    with pytest.raises(UsageError, match="no such file"):
        granted(f"iomem=mine,{file}")
    file.touch()
    assert (granted(f"iomem=mine,{file}").write, granted(f"iomem=mine,{file}").iomem) == ([file], True)
    for word in ("iomem=mine", "iomem=mine,here"):
        with pytest.raises(UsageError, match="no absolute path"):
            granted(word)


def test_a_device_of_another_server() -> None:
    assert granted("virtio_uml.device=/run/x:2").sockets == [Path("/run/x")]
    assert granted("time-travel=ext:1:/run/clock").sockets == [Path("/run/clock")]
    assert granted("time-travel=inf-cpu", "time-travel=").sockets == []
