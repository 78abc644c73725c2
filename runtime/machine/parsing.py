"""Words of the command line to what they mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from umlfs.errors import UsageError

if TYPE_CHECKING:
    from runtime.machine.equipment import HostMount

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


MOUNT_FORM: Final = "DIR=SRC[:OPTION]..."


def mount(text: str) -> HostMount:
    """`DIR=SRC`, and after it options, each behind a colon: `ro` or `rw`, and those of the kind of source.
    UsageError if it is not of that form, or there is no such source."""
    from runtime.machine.equipment import HostMount
    from umlfs.sources.options import split_options

    place, equals, rest = text.partition("=")
    source, read_only, options = split_options(rest)
    if not equals or not place or not source:
        raise UsageError(f"--mount {text}: not of the form {MOUNT_FORM}", "for example --mount /src=./project:ro")
    return HostMount(place, source, read_only, tuple(options.items()))


def directory(text: str | None) -> str | None:
    """A directory of the guest. UsageError if it is a relative path: nothing says what it is relative to."""
    if text is not None and not text.startswith("/"):
        raise UsageError(f"--pwd {text}: not an absolute path", "for example --pwd /src")
    return text


def variables(texts: Iterable[str]) -> dict[str, str]:
    """`K=V` each, or `K` alone for its present value (nothing if it has none). UsageError for a name that is none."""
    result = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not _NAME.match(name):
            raise UsageError(f"--env {text}: '{name}' is not the name of a variable", "write it as --env NAME=VALUE")
        if equals:
            result[name] = value
        elif name in os.environ:
            result[name] = os.environ[name]
    return result
