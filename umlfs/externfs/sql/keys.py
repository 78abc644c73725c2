"""Keys and values as names: what a row's directory is called."""

from __future__ import annotations

import errno
from typing import Any, Final

from umlfs.externfs.names import quoted, unquoted
from umlfs.externfs.sql.database import Column, Key, Table
from umlfs.host.syscalls import failure

_NULL: Final = "%n"
_JSON: Final = ".json"
# `quoted` writes a percent sign only before two capital hexadecimal digits, so none of these is a text's name.
_BYTES, _INTEGER, _FLOAT = "%x", "%i", "%f"


def value_name(value: Any, *, typed: bool = True) -> str:
    """A name for one value. Of a column without a type, whose 5 and '5' are two values, it tells the type."""
    if value is None:
        return _NULL
    if isinstance(value, bytes | memoryview):
        return _BYTES + bytes(value).hex()
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int):
        return str(value) if typed else f"{_INTEGER}{value}"
    if isinstance(value, float):
        return repr(value) if typed else f"{_FLOAT}{value!r}"
    return quoted(value)


def named_value(name: str, *, binary: bool = False) -> Any:
    """The value that has this name. ENOENT if none has."""
    try:
        if name == _NULL:
            return None
        if name.startswith(_BYTES):
            return bytes.fromhex(name[len(_BYTES) :])
        if name.startswith(_INTEGER):
            return int(name[len(_INTEGER) :])
        if name.startswith(_FLOAT):
            return float(name[len(_FLOAT) :])
    except ValueError:
        raise failure(errno.ENOENT) from None
    text = unquoted(name)
    return text.encode(errors="surrogateescape") if binary else text


def _columns(table: Table) -> list[Column | None]:
    return [table.column(name) for name in table.key]


def key_name(table: Table, key: Key) -> str:
    """What the directory of the row with this key is called: parts of it have commas between."""
    typed = [column is None or column.typed for column in _columns(table)]
    parts = [value_name(value, typed=has) for value, has in zip(key, typed, strict=True)]
    if len(parts) > 1:
        parts = [part.replace(",", "%2C") for part in parts]
    name = ",".join(parts)
    return f"{name[: -len(_JSON)]}%2Ejson" if name.endswith(_JSON) else name


def named_key(table: Table, name: str) -> Key:
    """The key that the name of a row tells; a database may know it by another name. ENOENT."""
    if name.endswith("%2Ejson"):
        name = f"{name[: -len('%2Ejson')]}{_JSON}"
    parts = name.split(",") if len(table.key) > 1 else [name]
    if len(parts) != len(table.key) or "" in parts:
        raise failure(errno.ENOENT)
    return tuple(named_value(part.replace("%2C", ",") if len(parts) > 1 else part) for part in parts)
