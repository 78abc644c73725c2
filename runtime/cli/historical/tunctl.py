"""tunctl: tap devices that stay, made and removed."""

from __future__ import annotations

import grp
import os
import pwd
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from runtime.cli.historical.frame import WrongUsage
from umlfs.errors import described

USAGE = """\
Create: {0} [-b] [-u owner] [-g group] [-t device-name] [-f tun-clone-device]
Delete: {0} -d device-name [-f tun-clone-device]

The default tun clone device is /dev/net/tun - some systems use
/dev/misc/net/tun instead

-b will result in brief output (just the device name)
"""


@dataclass
class TunctlOptions:
    """What the arguments say."""

    brief: bool = False
    owner: int | None = None
    group: int | None = None
    device: str = ""
    delete: bool = False
    clone: str = "/dev/net/tun"


def parse(arguments: Sequence[str]) -> TunctlOptions:
    """The historical arguments, as getopt takes them. WrongUsage, with what is wrong."""
    import getopt

    options = TunctlOptions()
    try:
        given, rest = getopt.gnu_getopt(list(arguments), "bd:f:t:u:g:")
    except getopt.GetoptError as error:
        raise WrongUsage(f"{error.msg}") from None
    for name, value in given:
        if name == "-b":
            options.brief = True
        elif name == "-d":
            options.delete, options.device = True, value
        elif name == "-f":
            options.clone = value
        elif name == "-t":
            options.device = value
        elif name == "-u":
            options.owner = _user(value)
        else:
            options.group = _group(value)
    if rest:
        raise WrongUsage
    return options


def _user(text: str) -> int:
    try:
        return int(text) if text.isdigit() else pwd.getpwnam(text).pw_uid
    except KeyError:
        raise WrongUsage(f"'{text}' is neither a username nor a numeric uid.") from None


def _group(text: str) -> int:
    try:
        return int(text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise WrongUsage(f"'{text}' is neither a groupname nor a numeric group.") from None


def run(options: TunctlOptions) -> str:
    """Do it; what to say. OSError, ValueError."""
    from runtime.network import tap

    fd, name = tap.open_tap(options.device, Path(options.clone))
    try:
        if options.delete:
            tap.set_persistent(fd, False)
            return f"Set '{name}' nonpersistent"
        owner = os.geteuid() if options.owner is None and options.group is None else options.owner
        if owner is not None:
            tap.set_owner(fd, owner)
        if options.group is not None:
            tap.set_group(fd, options.group)
        tap.set_persistent(fd, True)
    finally:
        os.close(fd)
    if options.brief:
        return name
    whose = f" uid {owner}" if owner is not None else ""
    return f"Set '{name}' persistent and owned by{whose}" + (
        f" gid {options.group}" if options.group is not None else ""
    )


def main() -> NoReturn:
    """The entry point of `tunctl`."""
    name = os.path.basename(sys.argv[0])
    try:
        print(run(parse(sys.argv[1:])))
    except WrongUsage as error:
        sys.stderr.write(f"{error}\n" * bool(str(error)) + USAGE.format(name))
        sys.exit(1)
    except OSError as error:
        print(f"{name}: {described(error)}", file=sys.stderr)
        sys.exit(1)
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)
