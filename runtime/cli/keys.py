"""The options that open encrypted disks: no key is ever a word of a command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import click

F = TypeVar("F", bound=Callable[..., object])


def key_options(command: F) -> F:
    """Give a command `--key-file` and `--passphrase`."""
    for option in (_passphrase, _key_file):
        command = option(command)
    return command


def _take_files(context: click.Context, option: click.Parameter, files: tuple[str, ...]) -> None:
    for name in files:
        from runtime.volumes import keys

        keys.add_file(name)


def _ask(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from runtime.volumes import keys

        if sys.stdin.isatty():
            keys.add(click.prompt("Passphrase", hide_input=True, err=True).encode())
        else:
            keys.add(sys.stdin.buffer.readline().rstrip(b"\n"))


_key_file = click.option(
    "--key-file",
    multiple=True,
    metavar="FILE",
    expose_value=False,
    callback=_take_files,
    help="Open an encrypted disk (LUKS) with what is in FILE.",
)
_passphrase = click.option(
    "--passphrase",
    is_flag=True,
    expose_value=False,
    callback=_ask,
    help="Open an encrypted disk (LUKS) with a passphrase, which is asked for, or a line of standard input.",
)
