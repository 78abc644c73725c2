"""Users of a guest as users of the program: the guest itself says whether a password is right."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from umlfs.errors import UmlError

NAME: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.@-]{0,63}\$?\Z")
"""What can be the name of a user; anything else is nobody's, and no shell gets to see it."""
PASSWORD_MAX: Final = 511
"""Bytes, as PAM takes them."""
UNKNOWN, NO_WAY = 3, 4

# unix_chkpwd is PAM's own helper: it reads the password, with a NUL behind it, and knows every hash that the guest's
# libcrypt does, and accounts that have expired. Where there is none, as on Alpine, busybox hashes the password.
_CHECK: Final = r"""
name=$1 busybox=$2
field() { while IFS= read -r line; do case $line in "$name":*) echo "$line"; return;; esac; done <"$1"; }
entry=$(field /etc/passwd)
[ "$entry" ] || exit 3
for helper in /sbin/unix_chkpwd /usr/sbin/unix_chkpwd /usr/bin/unix_chkpwd; do
    [ -x $helper ] || continue
    { cat; printf '\0'; } | $helper "$name" nonull || exit 1
    $helper "$name" chkexpiry </dev/null >/dev/null || exit 1
    echo "$entry"
    exit
done
hash=$(field /etc/shadow)
hash=${hash#*:} hash=${hash%%:*}
case $hash in
'$1$'*) kind=md5 ;;
'$5$'*) kind=sha256 ;;
'$6$'*) kind=sha512 ;;
'' | [!*]* | '*'*) [ "${hash#\$}" = "$hash" ] && exit 1; exit 4 ;;
esac
salt=${hash#\$?\$} salt=${salt%\$*}
made=$($busybox cryptpw -m $kind -P 0 -S "$salt")
[ "$made" = "$hash" ] && echo "$entry" || exit 1
"""

Run = Callable[[Sequence[str], bytes], Awaitable[tuple[int, bytes]]]
"""Runs a command as the guest's root with an input: its exit status and its output."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the guest, whose password was right."""

    name: str
    uid: int
    gid: int
    comment: str
    home: str
    shell: str


async def check(run: Run, busybox: str, name: str, password: str | bytes) -> Account | None:
    """The account `name` if `password` is right and neither has expired, else None. UmlError if the guest can tell
    nothing: its passwords are in a form that only a helper knows which it lacks."""
    secret = password.encode() if isinstance(password, str) else password
    if not NAME.match(name) or len(secret) > PASSWORD_MAX or b"\0" in secret or b"\n" in secret:
        return None
    status, said = await run([busybox, "sh", "-c", _CHECK, "sh", name, busybox], secret)
    if status == NO_WAY:
        raise UmlError(f"{name}: the guest has no program that knows its password's form", "install PAM in its root")
    return None if status else _account(said)


def _account(line: bytes) -> Account | None:
    fields = line.decode(errors="replace").rstrip("\n").split(":")
    if len(fields) != 7 or not (fields[2].isdecimal() and fields[3].isdecimal()):
        return None
    return Account(fields[0], int(fields[2]), int(fields[3]), *fields[4:])
