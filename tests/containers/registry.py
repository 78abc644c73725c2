"""A registry on loopback: Debian's docker-registry, with images that skopeo puts there."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import needs
from umlfs.host.programs import Program

_LISTENING = re.compile(rb"listening on 127\.0\.0\.1:([0-9]+)")
_BLOB = re.compile(r'"GET /v2/[^ ]+/blobs/(sha256:[0-9a-f]{64})')
USER, PASSWORD = "somebody", "secret"
_HASHED = "$2b$04$SHkv/xNbRplko4hMKCJPF.ymnvOyL7xAAS8YGmT7r8P6G67A3hWwi"


@dataclass(frozen=True)
class Registry:
    """One that runs."""

    port: int
    log: Path

    def word(self, name: str) -> str:
        """The source that an image in it is."""
        return f"docker://localhost:{self.port}/{name}"

    def put(self, layout: Path, name: str, *options: str) -> None:
        """Have it hold the image of a layout."""
        words = [needs.program("skopeo"), "copy", "-q", "--dest-tls-verify=false", *options]
        subprocess.run([*words, f"oci:{layout}", self.word(name)], check=True)

    def fetched(self) -> list[str]:
        """The digests of blobs that were asked for, one for each time."""
        return _BLOB.findall(self.log.read_text())


@contextlib.contextmanager
def registry(directory: Path, *, password: bool = False) -> Iterator[Registry]:
    """A registry whose files lie in `directory`; with `password` it is for `USER` alone."""
    directory.mkdir()
    lines = [
        "version: 0.1",
        f"storage: {{filesystem: {{rootdirectory: {directory}/data}}}}",
        'http: {addr: "127.0.0.1:0"}',
    ]
    if password:
        (directory / "users").write_text(f"{USER}:{_HASHED}\n")
        lines.append(f"auth: {{htpasswd: {{realm: here, path: {directory}/users}}}}")
    (directory / "config.yml").write_text("\n".join(lines) + "\n")
    log = directory / "log"
    words = [needs.program("docker-registry"), "serve", str(directory / "config.yml")]
    with open(log, "wb") as output, Program(words, stdout=output, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if match := _LISTENING.search(line):
                    break
            else:
                raise AssertionError("the registry ended")
            yield Registry(int(match[1]), log)
        finally:
            process.kill()
