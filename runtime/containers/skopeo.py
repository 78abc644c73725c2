"""skopeo, which knows registries: their protocol, their mirrors, and where credentials for them are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import trio

from runtime.containers.reference import Reference
from runtime.host.needs import find_program
from umlfs.errors import UmlError

_MESSAGE: Final = re.compile(r'level=fatal msg=("(?:[^"\\]|\\.)*"|\S+)')
_PREFIX: Final = re.compile(r'\A(?:Error parsing image name|initializing source) "?docker://[^ "]+"?: ')
_REFUSED: Final = ("unauthorized", "authentication required", "denied", "forbidden")
_UNKNOWN: Final = ("manifest unknown", "name unknown", "not found")


async def manifest(image: Reference) -> bytes:
    """The manifest, or the index of manifests, that a registry has under the image's name. UmlError."""
    return await _run(image, "inspect", "--raw", *_tls(image, ""), str(image))


async def copy(image: Reference, layout: Path, name: str) -> None:
    """Have the OCI layout `layout` hold the image as `name`, without fetching what is there by its digest. UmlError."""
    await _run(image, "copy", *_tls(image, "src-"), str(image), f"oci:{layout}:{name}", shown=True)


def _tls(image: Reference, prefix: str) -> list[str]:
    return [f"--{prefix}tls-verify=false"] if image.is_near else []


async def _run(image: Reference, *words: str, shown: bool = False) -> bytes:
    """What skopeo writes; where that is `shown`, it goes to the person's terminal instead, if there is one."""
    program = find_program("skopeo")
    on_terminal = shown and sys.stderr.isatty()
    output: dict[str, Any] = {"stdout": sys.stderr.fileno()} if on_terminal else {"capture_stdout": True}
    done = await trio.run_process(
        [program, *words],
        stdin=subprocess.DEVNULL,
        capture_stderr=True,
        process_group=0,
        check=False,
        **output,
    )
    if done.returncode:
        raise _failed(image, done.stderr.decode(errors="replace"))
    return done.stdout or b""


def _failed(image: Reference, text: str) -> UmlError:
    """skopeo's own words, once."""
    match = _MESSAGE.search(text)
    words = match[1] if match is not None else (text.strip().splitlines() or ["it says nothing"])[-1]
    if words.startswith('"'):
        try:
            words = json.loads(words)
        except ValueError:
            words = words.strip('"')
    words = _PREFIX.sub("", words.replace("\n", " "))
    lower = words.lower()
    if any(word in lower for word in _REFUSED):
        way_out = "log in with 'skopeo login', or see that there is such an image"
    elif any(word in lower for word in _UNKNOWN):
        way_out = "see that there is such an image: 'skopeo list-tags docker://NAME'"
    elif "no space left" in lower:
        way_out = "make room there"
    else:
        way_out = "see that the registry can be reached; what was fetched before can be named NAME@sha256:..."
    return UmlError(f"{image}: skopeo cannot fetch it: {words}", way_out)
