"""Making a cluster: its file, and its shared disks with their filesystems."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from runtime.cluster import description as clusters
from runtime.cluster.description import Cluster, Shared
from runtime.host.needs import find_program
from runtime.machines.description import Description
from umlfs.errors import UmlError, UsageError
from umlfs.host.newfile import new_file
from umlfs.host.programs import run_program
from umlfs.sizes import size_of

SMALL: Final = 512 << 20
"""Bytes of a disk below which its journals are as small as can be."""
SMALLEST: Final = 32 << 20
MOUNT: Final = "/shared"
MKFS_SECONDS: Final = 600.0


def create(
    path: Path, *, nodes: int, sizes: Sequence[str], filesystem: str, machine: Description
) -> tuple[Cluster, list[Path]]:
    """Make the cluster's file at `path`, and beside it an image for each of `sizes`; the paths of these. UmlError,
    UsageError; then nothing is left."""
    lengths = [_size(text) for text in sizes]
    disks = [_disk(path.stem, number, filesystem) for number in range(len(sizes))]
    images = [path.parent / disk.image for disk in disks]
    for each in (path, *images):
        if os.path.lexists(each):
            raise UmlError(f"{each}: is there already", "remove it, or choose another name")
    with contextlib.ExitStack() as made:
        try:
            with new_file(str(path), 0o644) as fd:
                os.write(fd, clusters.encode(nodes, machine, disks).encode())
        except OSError as error:
            raise UmlError(f"{path}: cannot be made: {error.strerror}", "name a place that you may write to") from error
        made.callback(path.unlink, missing_ok=True)
        cluster = clusters.load(path)
        for image, length in zip(images, lengths, strict=True):
            made.callback(image.unlink, missing_ok=True)
            _make_image(image, length, filesystem, nodes, cluster.name)
        made.pop_all()
    return cluster, images


def _size(text: str) -> int:
    size = size_of(text)
    if size is None or size < SMALLEST:
        raise UsageError(f"--shared {text}: not a size of a disk", f"write it like 1G; {SMALLEST >> 20}M is the least")
    return size & -4096


def _disk(name: str, number: int, filesystem: str) -> Shared:
    suffix = str(number + 1) if number else ""
    return Shared(f"{name}-shared{suffix}.img", filesystem, "" if filesystem == "none" else f"{MOUNT}{suffix}")


def _make_image(image: Path, size: int, filesystem: str, nodes: int, name: str) -> None:
    with new_file(str(image), 0o600) as fd:
        os.ftruncate(fd, size)
        if filesystem == "ocfs2":
            _mkfs(f"/proc/self/fd/{fd}", fd, image, size, nodes, name)


def _mkfs(place: str, fd: int, image: Path, size: int, nodes: int, name: str) -> None:
    """An ocfs2 for one node more than there are, so that another can come."""
    words = [find_program("mkfs.ocfs2"), "-q", "-F", "-N", str(nodes + 1), "-b", "4K", "-C", "4K"]
    words += ["-J", "size=4M"] if size < SMALL else []
    words += ["-L", name[:32], "--cluster-stack=o2cb", f"--cluster-name={name[:16]}", place]
    done = run_program(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(fd,), timeout=MKFS_SECONDS)
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip().splitlines()
        raise UmlError(f"{image}: mkfs.ocfs2: {said[-1] if said else f'exit status {done.returncode}'}")
