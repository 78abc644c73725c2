"""The index of an archive: an SQLite file. What it says of contents is where they are in the archive as plain tar."""

from __future__ import annotations

from typing import Final

VERSION: Final = 1

SCHEMA: Final = """\
CREATE TABLE archive (
    version INTEGER NOT NULL,
    path    TEXT NOT NULL,
    device  INTEGER NOT NULL,       -- these three: what the file was when it was read
    inode   INTEGER NOT NULL,
    size    INTEGER NOT NULL,
    mtime   INTEGER NOT NULL        -- nanoseconds
);
CREATE TABLE inode (
    ino    INTEGER PRIMARY KEY,     -- the root is 1
    mode   INTEGER NOT NULL,        -- type and permission bits
    uid    INTEGER NOT NULL,
    gid    INTEGER NOT NULL,
    rdev   INTEGER NOT NULL,
    size   INTEGER NOT NULL,
    atime  INTEGER,                 -- nanoseconds; NULL: as mtime
    mtime  INTEGER NOT NULL,        -- nanoseconds
    target BLOB NOT NULL,           -- of a symlink
    place  INTEGER,                 -- of a regular file: where its contents are in the plain archive
    ranges TEXT,                    -- of one with holes: JSON, [[offset, length], ...], where they go
    nlink  INTEGER NOT NULL
);
CREATE TABLE entry (
    parent INTEGER NOT NULL,
    name   BLOB NOT NULL,
    ino    INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE TABLE attribute (
    ino   INTEGER NOT NULL,
    name  BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (ino, name)
) WITHOUT ROWID;
"""
