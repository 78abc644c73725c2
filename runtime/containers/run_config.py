"""How an image is to be run: Env, WorkingDir, User, Entrypoint, Cmd of its config (OCI image-spec 1.1, config.md)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from humfs.archive import describe_image
from runtime.containers import kept, kinds, reference
from runtime.containers.reference import Reference
from umlfs.errors import UmlError
from umlfs.sources import as_source

_VARIABLE: Final = re.compile(r"[^=\0]+=[^\0]*\Z", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What `docker run` does of an image's config, where the caller says nothing else."""

    environment: Mapping[str, str]
    directory: str | None
    user: str | None
    """A name or a number."""
    group: str | None
    """The one that the image wants beside the user's own."""
    command: Sequence[str]
    """Entrypoint and Cmd."""
    left_out: Sequence[str]
    """Names of variables that no shell could have."""


async def read_run_config(root: str) -> tuple[str, RunConfig] | None:
    """The source of the image `root`, one in a registry by its digest, and what it says. None if it is no image's.

    Fetches what is not there. UmlError, UsageError.
    """
    source = as_source(root)
    if source.scheme == "docker":
        image = reference.parse(source.argument)
        async with kept.fetched(image) as (layout, name):
            config = await _config(layout, name)
        return str(Reference(image.name, digest=image.digest or f"sha256:{name}")), parse(root, config)
    if source.scheme == "oci":
        path, tag = kinds.path_and_tag(source.argument)
        return root, parse(root, await _config(Path(path), tag))
    return None


async def _config(path: Path, tag: str | None) -> Any:
    about = await trio.to_thread.run_sync(describe_image, path, tag)
    return about.config.get("config")


def parse(root: str, config: Any) -> RunConfig:
    """UmlError, with the name of the image, for a config that is not as the standard has it."""
    if config is None:
        config = {}
    if not isinstance(config, dict):
        raise _wrong(root, "config")
    variables = _texts(root, config, "Env")
    if not all(map(_VARIABLE.match, variables)):
        raise _wrong(root, "Env")
    environment = dict(variable.split("=", 1) for variable in variables)
    left_out = [name for name in environment if not _NAME.match(name)]
    directory = _text(root, config, "WorkingDir")
    user, colon, group = _text(root, config, "User").partition(":")
    if colon and not (user and group):
        raise _wrong(root, "User")
    return RunConfig(
        {name: value for name, value in environment.items() if _NAME.match(name)},
        # Docker takes a relative one from the root.
        os.path.join("/", directory) if directory else None,
        user or None,
        group or None,
        [*_texts(root, config, "Entrypoint"), *_texts(root, config, "Cmd")],
        left_out,
    )


def _text(root: str, config: dict[str, Any], name: str) -> str:
    found = config.get(name) or ""
    if not isinstance(found, str) or "\0" in found:
        raise _wrong(root, name)
    return found


def _texts(root: str, config: dict[str, Any], name: str) -> list[str]:
    found = config.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, str) and "\0" not in each for each in found):
        raise _wrong(root, name)
    return found


def _wrong(root: str, name: str) -> UmlError:
    return UmlError(f"{root}: the image's config is damaged: {name}", "have the image made again")
