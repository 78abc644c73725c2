"""An archive of packages, as Debian's is one: signed, and served on loopback by a server that can break off."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from runtime.kernels.kernel import Kernel
from runtime.kernels.modules import resolve
from tests import needs

NEEDED = ("fuse", "virtiofs", "virtio_blk", "overlay", "nbd", "ext4")
"""The modules that guests here load."""


@dataclass
class Archive:
    """Suites of one package each."""

    place: Path
    keyring: Path
    _gnupg: Path
    cut_after: int = 0
    """Bytes of a package after which the server breaks off; 0 for never."""
    asked: list[tuple[str, int]] = field(default_factory=list)
    """What was asked for, and from which byte on."""
    url: str = ""

    def add(self, suite: str, package: Path) -> None:
        """Put a package into a suite, and sign that."""
        pool = self.place / "pool"
        pool.mkdir(exist_ok=True)
        shutil.copy(package, pool)
        name = f"pool/{package.name}"
        printed = subprocess.run(["dpkg-deb", "-f", package], capture_output=True, text=True, check=True).stdout.strip()
        index = self.place / "dists" / suite / "main/binary-amd64"
        index.mkdir(parents=True, exist_ok=True)
        content = package.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        text = f"{printed}\nFilename: {name}\nSize: {len(content)}\nSHA256: {digest}\n\n"
        (index / "Packages.gz").write_bytes(gzip.compress(text.encode()))
        self.sign(suite)

    def sign(self, suite: str) -> None:
        """Write the suite's InRelease file."""
        place = self.place / "dists" / suite
        packed = (place / "main/binary-amd64/Packages.gz").read_bytes()
        plain = gzip.decompress(packed)
        sums = [
            f" {hashlib.sha256(data).hexdigest()} {len(data)} main/binary-amd64/Packages{ending}"
            for data, ending in ((plain, ""), (packed, ".gz"))
        ]
        lines = [f"Suite: {suite}", f"Codename: {suite}", "Date: Sat, 01 Jan 2022 00:00:00 UTC", "Components: main"]
        text = "\n".join([*lines, "Architectures: amd64", "SHA256:", *sums]) + "\n"
        command = [needs.program("gpg"), "--homedir", str(self._gnupg), "--batch", "--yes", "--clearsign"]
        signed = subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout
        (place / "InRelease").write_bytes(signed)


@contextlib.contextmanager
def served(place: Path) -> Iterator[Archive]:
    """An archive at `place`, empty at first."""
    archive = Archive(place / "archive", place / "keys.asc", place / "gnupg")
    archive.place.mkdir()
    _make_key(archive)
    try:
        with _server(archive) as url:
            archive.url = url
            yield archive
    finally:
        _end_agent(archive)


def _make_key(archive: Archive) -> None:
    archive._gnupg.mkdir(mode=0o700)
    gpg = [needs.program("gpg"), "--homedir", str(archive._gnupg), "--batch", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "archive", "rsa2048", "sign"], capture_output=True, check=True)
    keys = subprocess.run([*gpg, "--armor", "--export"], capture_output=True, check=True).stdout
    archive.keyring.write_bytes(keys)
    _end_agent(archive)


def _end_agent(archive: Archive) -> None:
    subprocess.run(["gpgconf", "--homedir", str(archive._gnupg), "--kill", "all"], capture_output=True, check=False)


@contextlib.contextmanager
def _server(archive: Archive) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = archive.place / self.path.lstrip("/")
            first = int(re.sub(r"\D", "", self.headers.get("Range", "0")) or 0)
            archive.asked.append((self.path, first))
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            changed = formatdate(path.stat().st_mtime, usegmt=True)
            if self.headers.get("If-Range", changed) != changed:
                first = 0
            self.send_response(206 if first else 200)
            self.send_header("Content-Length", str(len(content) - first))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Last-Modified", changed)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            rest = content[first:]
            cut = archive.cut_after if path.suffix == ".deb" else 0
            with contextlib.suppress(OSError):
                self.wfile.write(rest[:cut] if cut else rest)
            self.close_connection = bool(cut)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_package(place: Path, kernel: Kernel, version: str, program: bytes | None = None) -> Path:
    """A package with a kernel (or `program` in its place) and the modules that guests here need."""
    tree = place / f"tree-{version}"
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        f"Package: user-mode-linux\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody <n@example.org>\n"
        "Description: a kernel\n"
    )
    (tree / "usr/bin/linux.uml").write_bytes(program or kernel.path.read_bytes())
    (tree / "usr/bin/linux.uml").chmod(0o755)
    _copy_modules(kernel, tree / "usr/lib/uml/modules" / kernel.version)
    package = place / f"user-mode-linux_{version}_amd64.deb"
    subprocess.run(["dpkg-deb", "-Znone", "--root-owner-group", "-b", tree, package], capture_output=True, check=True)
    return package


def _copy_modules(kernel: Kernel, place: Path) -> None:
    assert kernel.modules is not None
    place.mkdir(parents=True)
    lines = []
    for module in resolve(kernel, NEEDED):
        name = module.path.relative_to(kernel.modules)
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(module.path, place / name)
        wanted = (str(each.path.relative_to(kernel.modules)) for each in resolve(kernel, [module.name])[:-1])
        lines.append(f"{name}: {' '.join(wanted)}\n")
    (place / "modules.dep").write_text("".join(lines))
    shutil.copy(kernel.modules / "modules.builtin", place / "modules.builtin")


def make_source_package(place: Path, tree: Path, version: str) -> Path:
    """A package with the source of a kernel, which is what `tree` holds."""
    packed = place / f"package-{version}"
    (packed / "usr/src").mkdir(parents=True)
    (packed / "DEBIAN").mkdir()
    (packed / "DEBIAN/control").write_text(
        f"Package: linux-source-{version}\nVersion: {version}-1\nArchitecture: amd64\n"
        "Maintainer: nobody <n@example.org>\nDescription: a source\n"
    )
    with tarfile.open(packed / f"usr/src/linux-source-{version}.tar.xz", "w:xz") as file:
        file.add(tree, f"linux-source-{version}")
    built = place / f"linux-source-{version}.deb"
    subprocess.run(["dpkg-deb", "-b", packed, built], capture_output=True, check=True)
    return built
