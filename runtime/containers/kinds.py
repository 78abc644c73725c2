"""The kinds of source `docker://NAME:TAG` and `oci:PATH[:NAME]`: the files of container images."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from umlfs.errors import UmlError, UsageError
from umlfs.filesystem import Filesystem
from umlfs.sources import OpenOptions, SourceKind, refuse_options

_TAGGED: Final = re.compile(r"(.+):([A-Za-z0-9_][A-Za-z0-9._-]{0,127}|[^:]+/[^:]+:[A-Za-z0-9._-]+)\Z", re.DOTALL)
"""A path, and the name of an image: a tag, or a whole name."""


class DockerKind(SourceKind):
    """Images in registries, fetched by skopeo and kept: `docker://NAME:TAG`, `docker://HOST:PORT/NAME@sha256:...`."""

    example = "uml run --root docker://alpine:3.20 -- cat /etc/os-release"

    def is_whole(self, argument: str) -> bool:
        """What follows the name is its tag, which may be called like an option."""
        return self.divided(argument)[1] is None

    def divided(self, argument: str) -> tuple[str, str | None]:
        from runtime.containers import reference

        return reference.divided(argument)

    async def open(self, argument: str, options: OpenOptions) -> Filesystem:
        """Fetch what of the image is not there, and open it. UmlError, UsageError."""
        from runtime.containers import kept, reference

        image = reference.parse(argument)
        refuse_options("docker", options)
        async with kept.fetched(image) as (layout, name):
            return await _opened(layout, name)


class OciKind(SourceKind):
    """Container images: an OCI layout, packed or not, or what `docker save` writes; of several in it one, by its name:
    `oci:PATH`, `oci:PATH:NAME`."""

    example = "uml run --root oci:image.oci -- sh"

    def files(self, argument: str) -> Sequence[str]:
        return (path_and_tag(argument)[0],)

    def is_whole(self, argument: str) -> bool:
        """Its last word is a tag if an image there is called so."""
        from humfs.archive import describe_image

        path, tag = path_and_tag(argument)
        if not os.path.lexists(path):
            return False
        try:
            return tag is None or bool(describe_image(Path(path), tag))
        except UmlError:
            return False

    def absolute(self, argument: str) -> str:
        path, tag = path_and_tag(argument)
        return os.path.abspath(path) + (f":{tag}" if tag is not None else "")

    async def open(self, argument: str, options: OpenOptions) -> Filesystem:
        """Open the image; the first time all of it is read. UmlError, UsageError."""
        path, tag = path_and_tag(argument)
        if not path:
            raise UsageError("oci: no image named", "write oci:PATH or oci:PATH:NAME")
        refuse_options("oci", options)
        return await _opened(Path(path), tag)


def path_and_tag(argument: str) -> tuple[str, str | None]:
    """The path, and the name of one image there, that `oci:` is followed by."""
    tagged = None if os.path.lexists(argument) else _TAGGED.match(argument)
    return (tagged[1], tagged[2]) if tagged is not None and os.path.lexists(tagged[1]) else (argument, None)


async def _opened(path: Path, tag: str | None) -> Filesystem:
    from runtime.archives.filesystem import open_archive
    from runtime.containers import kept

    async with kept.tree(path, tag) as archive:
        return await open_archive(archive)


docker: Final = DockerKind()
oci: Final = OciKind()
