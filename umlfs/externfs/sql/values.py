"""Values of columns as contents of files, and back."""

from __future__ import annotations

import base64
import binascii
import errno
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, Final

from umlfs.externfs.sql.database import Column, Refused, Row, Table

_BYTES: Final = "$bytes"
"""In JSON, an object with this name alone stands for bytes: it holds them as base64."""


def contents(value: Any) -> bytes:
    """What a file holds for a value that is not NULL."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, float):
        return repr(value).encode()
    return str(value).encode(errors="surrogateescape")


def value(column: Column, data: bytes, former: Any = None) -> Any:
    """The value that a file's contents stand for. EILSEQ: the column has text, and this is none."""
    if column.binary or (isinstance(former, bytes | bytearray | memoryview) and not column.typed):
        return data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        if not column.typed:
            return data
        raise Refused(errno.EILSEQ, f"{column.name}: no text in UTF-8") from None
    if column.numeric:
        if not text.strip():
            raise Refused(errno.EINVAL, f"{column.name}: no number")
        return text.strip()
    if not column.typed and isinstance(former, int | float):
        return _number(text, type(former))
    return text


def _number(text: str, kind: type) -> Any:
    try:
        return kind(text.strip())
    except ValueError:
        return text


# JSON -----------------------------------------------------------------------------------------


def json_line(names: Sequence[str], row: Sequence[Any]) -> str:
    """A row as an object."""
    return json.dumps({name: _to_json(one) for name, one in zip(names, row, strict=True)})


def _to_json(one: Any) -> Any:
    if isinstance(one, bytes | bytearray | memoryview):
        return {_BYTES: base64.b64encode(bytes(one)).decode()}
    return one if one is None or isinstance(one, int | float | str) else str(one)


def from_json(table: Table, data: bytes | str) -> Row:
    """The row that an object stands for. EINVAL if it is none, or names a column that is not there."""
    try:
        found = json.loads(data)
    except ValueError as error:
        raise Refused(errno.EINVAL, f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise Refused(errno.EINVAL, "not a JSON object")
    if unknown := sorted(set(found) - {column.name for column in table.columns}):
        raise Refused(errno.EINVAL, f"no column {unknown[0]}")
    return {name: _from_json(one) for name, one in found.items()}


def _from_json(one: Any) -> Any:
    if isinstance(one, dict) and set(one) == {_BYTES}:
        try:
            return base64.b64decode(one[_BYTES], validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise Refused(errno.EINVAL, "not base64") from None
    if isinstance(one, dict | list):
        return json.dumps(one)
    return one


# CSV (RFC 4180): a field in quotes is text, an empty one without quotes is NULL ----------------


def csv_line(row: Sequence[Any]) -> str:
    """A row; bytes are written as `\\x` and hexadecimal digits."""
    return ",".join(map(_field, row)) + "\r\n"


def _field(one: Any) -> str:
    if one is None:
        return ""
    if isinstance(one, bytes | bytearray | memoryview):
        return f"\\x{bytes(one).hex()}"
    if not isinstance(one, str):
        return repr(one) if isinstance(one, float) else str(one)
    if one and not any(character in one for character in ',"\r\n\\'):
        return one
    return '"' + one.replace('"', '""') + '"'


_FIELD_MAX: Final = 64 << 20


def csv_rows(file: IO[bytes]) -> Iterator[list[str | bytes | None]]:
    """The records of a file. EINVAL."""
    record: list[str | bytes | None] = []
    pending = ""
    for line in file:
        pending += line.decode(errors="surrogateescape")
        if pending.count('"') % 2:
            if len(pending) > _FIELD_MAX:
                raise Refused(errno.EFBIG, "a field without an end")
            continue
        record = list(_fields(pending.rstrip("\r\n") if pending.endswith("\n") else pending))
        pending = ""
        yield record
    if pending:
        raise Refused(errno.EINVAL, "a quote that is not closed")


def _fields(line: str) -> Iterator[str | bytes | None]:
    start, length = 0, len(line)
    while start <= length:
        if line.startswith('"', start):
            end = start + 1
            while end < length and not (line[end] == '"' and line[end + 1 : end + 2] != '"'):
                end += 2 if line[end] == '"' else 1
            if end >= length or line[end + 1 : end + 2] not in ("", ","):
                raise Refused(errno.EINVAL, f"column {start + 1} of a line: a quote out of place")
            yield line[start + 1 : end].replace('""', '"')
            start = end + 2
            continue
        end = line.find(",", start)
        end = length if end < 0 else end
        yield _bare(line[start:end])
        start = end + 1


def _bare(text: str) -> str | bytes | None:
    if text.startswith("\\x"):
        try:
            return bytes.fromhex(text[2:])
        except ValueError:
            raise Refused(errno.EINVAL, f"{text[:20]}: not hexadecimal") from None
    return text or None


def rows_of_csv(table: Table, file: IO[bytes]) -> Iterator[Row]:
    """The rows in a file whose first record names the columns."""
    records = csv_rows(file)
    names = [name for name in next(records, []) if isinstance(name, str)]
    if unknown := sorted(set(names) - {column.name for column in table.columns}):
        raise Refused(errno.EINVAL, f"no column {unknown[0]}")
    for record in records:
        if len(record) != len(names):
            raise Refused(errno.EINVAL, f"{len(record)} fields for {len(names)} columns")
        yield dict(zip(names, record, strict=True))


def rows_of_json(table: Table, file: IO[bytes]) -> Iterator[Row]:
    """The rows in a file of an object a line."""
    for line in file:
        if line.strip():
            yield from_json(table, line)


# Streams --------------------------------------------------------------------------------------


def csv_pieces(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """A whole table."""
    yield csv_line(names).encode(errors="surrogateescape")
    for row in rows:
        yield csv_line(row).encode(errors="surrogateescape")


def json_pieces(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """A whole table, an object a line."""
    for row in rows:
        yield json_line(names, row).encode() + b"\n"
