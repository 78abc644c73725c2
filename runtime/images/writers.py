"""A tar archive, in a stream, into an image of any format. Everything here waits, and is for a thread."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import trio

from humfs.archive import add_stream
from humfs.tarball import plain
from runtime.images import ext4
from runtime.images.programs import find_program
from runtime.images.sink import Tick, Warn, pour
from runtime.images.streams import failed, said, scratch_errors
from umlfs.errors import UmlError
from umlfs.host.programs import Program

_CHUNK: Final = 1 << 20
_COMPRESSORS: Final = {
    "gzip": ("gzip", ["-n"]),
    "xz": ("xz-utils", ["-T2"]),
    "zstd": ("zstd", ["-q", "-T0"]),
}
"""By program: its package, and options with which the same input gives the same output anywhere."""
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True)
class Report:
    """What is told while one writes."""

    warn: Warn
    tick: Tick


def to_ext4(stream: BinaryIO, fd: int, settings: ext4.Settings, report: Report) -> None:
    """Into a new ext4 in the file behind `fd`."""
    ext4.make_filesystem(fd, settings)
    with ext4.Ext4Writer(f"/proc/self/fd/{fd}", settings, report.warn) as writer:
        pour(stream, writer, report.tick)


def to_humfs(stream: BinaryIO, root: Path, size: int, report: Report) -> None:
    """Into a new humfs at `root` that has room for `size` bytes."""
    from humfs.volume import create

    create(root, size)
    trio.run(lambda: add_stream(root, stream, warn=report.warn, progress=lambda count: report.tick(count, "files")))


# Directories ----------------------------------------------------------------------------------


def to_directory(stream: BinaryIO, root: Path, report: Report) -> None:
    """Into a new directory: whole as root; else without owners, and so without set-id bits and devices."""
    root.mkdir(0o755)
    as_root = os.geteuid() == 0
    words = [find_program("tar", "tar"), "--extract", "--file=-", "--xattrs", f"--directory={root}", "--numeric-owner"]
    words.append("--warning=no-unknown-keyword")  # `hdrcharset`, which is POSIX's own
    if as_root:
        words += ["--same-permissions", "--same-owner", "--xattrs-include=*"]
    else:
        words += ["--no-same-owner", "--no-same-permissions"]
        words += ["--xattrs-include=user.*", "--xattrs-include=system.posix_acl_*"]
    with scratch_errors() as errors:
        # Not with our own umask: modes are the archive's.
        options = {"stdin": subprocess.PIPE, "stderr": errors, "env": _ENVIRONMENT, "umask": 0}
        process = Program(words, **options)
        status = _feed(stream, process, report.tick)
        lines = said(errors)
    devices = [line for line in lines if line.endswith(_NO_DEVICE)]
    others = [line for line in lines if line not in devices and _EXITING not in line]
    if status and (as_root or others or not devices):
        raise failed(f"{root.name}: not all of the archive could be unpacked", others or lines)
    if not as_root:
        report.warn("owners, set-id bits and capabilities are lost: only root can give them to files of this host")
        if devices:
            report.warn(f"{len(devices)} devices are left out, which only root can make")


_ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C"}
_NO_DEVICE: Final = "Cannot mknod: Operation not permitted"
_EXITING: Final = "Exiting with failure status due to previous errors"


def _feed(stream: BinaryIO, process: subprocess.Popen[bytes], tick: Tick) -> int:
    """Give a program the archive, decompressed; returns its exit status. What it does not take is left."""
    pipe = cast(BinaryIO, process.stdin)
    try:
        with contextlib.suppress(BrokenPipeError), pipe:
            copy(stream, pipe.write, tick)
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()
    return process.returncode


def copy(stream: BinaryIO, write: Callable[[bytes], object], tick: Tick) -> None:
    """Write all of an archive, decompressed; `tick` is told of each MiB. UmlError for what is none, or cut short."""
    done = 0
    data = b""
    with plain(stream) as source:
        _require_header(source.read(tarfile.BLOCKSIZE), write)
        while more := source.read(_CHUNK):
            data = more
            write(data)
            done += 1
            tick(done, "MiB")
    if data[-tarfile.BLOCKSIZE :].strip(b"\0"):
        raise UmlError("the archive has no end", "it was cut short, make it again")


def _require_header(block: bytes, write: Callable[[bytes], object]) -> None:
    """Pass on the first block of an archive."""
    try:
        if block.strip(b"\0"):
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        raise UmlError("no tar archive, or a damaged one", None) from None
    write(block)


# tar ------------------------------------------------------------------------------------------


def to_tar(stream: BinaryIO, fd: int, compressor: str | None, report: Report) -> None:
    """Into a tar file, compressed by the program `compressor`, behind `fd`."""
    with open(fd, "wb", closefd=False) as output:
        if compressor is None:
            copy(stream, output.write, report.tick)
            return
        package, words = _COMPRESSORS[compressor]
        with scratch_errors() as errors:
            process = Program(
                [find_program(compressor, package), *words, "-c"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                env={**os.environ, "LC_ALL": "C"},
            )
            if _feed(stream, process, report.tick):
                raise failed(f"{compressor} failed", said(errors))


# Container images -----------------------------------------------------------------------------


def to_oci(stream: BinaryIO, root: Path, report: Report) -> None:
    """Into a new OCI image layout with a single layer."""
    blobs = root / "blobs/sha256"
    blobs.mkdir(parents=True)
    layer = _put_layer(stream, blobs, report.tick)
    machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
    rootfs = {"type": "layers", "diff_ids": [layer["digest"]]}
    config = _put(blobs, _CONFIG, {"architecture": machine, "os": "linux", "config": {}, "rootfs": rootfs})
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": [layer]}
    index = {"schemaVersion": 2, "manifests": [_put(blobs, _MANIFEST, manifest)]}
    (root / "index.json").write_text(_json(index))
    (root / "oci-layout").write_text(_json({"imageLayoutVersion": "1.0.0"}))


def _put_layer(stream: BinaryIO, blobs: Path, tick: Tick) -> dict[str, object]:
    digest = hashlib.sha256()
    made = blobs / "layer"
    with open(made, "xb") as output:

        def write(data: bytes) -> None:
            digest.update(data)
            output.write(data)

        copy(stream, write, tick)
        size = output.tell()
    os.rename(made, blobs / digest.hexdigest())
    return {"mediaType": _LAYER, "digest": f"sha256:{digest.hexdigest()}", "size": size}


def _put(blobs: Path, kind: str, document: object) -> dict[str, object]:
    data = _json(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def _json(document: object) -> str:
    return json.dumps(document, sort_keys=True)
