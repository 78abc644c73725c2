"""The schema of `metadata.sqlite`: every table and column, what it means, and what always holds.

This is the format's definition. Contents and names are files under `data/`; the database has what a host user
cannot give those files. What is on both sides (names, sizes) is the host's in doubt: see `humfs.reconcile`.

Numbers of inodes are the contract's: the root is 1, no number is ever given twice. Host inode numbers bind a row to
its file under `data/`, so that one that was renamed by hand, or by a server that died, is found again.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from umlfs.errors import UmlError

if TYPE_CHECKING:
    from sqlite_utils import Database

FILE: Final = "metadata.sqlite"
USER_VERSION: Final = 1
"""`PRAGMA user_version` of this schema. A reader refuses a higher one, and migrates a lower."""
APPLICATION_ID: Final = 0x68756D66
"""`PRAGMA application_id`: the letters `humf`."""

INODE: Final = {
    "ino": int,  # primary key; 1 is the root
    "mode": int,  # st_mode: type and permission bits. The host's type is the same, but a plain file for devices,
    #               fifos and sockets
    "uid": int,
    "gid": int,
    "rdev": int,  # st_rdev of a device node (as os.makedev), else 0
    "nlink": int,  # names of a file; of a directory 2 and one for each directory in it. 0: unlinked, still in use;
    #                the file, if it is still there, is `orphans/INO`, and goes at the next open
    "size": int,  # bytes: of a file as last seen on the host, of a symlink the length of its target
    "blocks": int,  # of 512 bytes: what the inode counts for in `used`
    "atime_ns": int,  # nanoseconds since the epoch; never those of the host's file
    "mtime_ns": int,
    "ctime_ns": int,
    "xattrs": int,  # 1 if the inode may have rows in `xattr`, 0 if it has none
    "host_ino": int,  # st_ino of its file under data/; NULL after a copy, until the file has been found by name
    "host_ctime_ns": int,  # of a directory: st_ctime of its host directory when this filesystem was closed; if it
    #                        differs at the next open, names were changed by hand. Else 0
}
"""`inode`: one row for each inode. Every row but the root's and those with nlink 0 has a name."""

DENTRY: Final = {
    "id": int,  # primary key: the position in listings; a name's stays while the name does
    "parent": int,  # inode of the directory
    "name": bytes,  # one component, without / and NUL, never . or ..; unique in its directory
    "ino": int,  # the inode it leads to; of a directory, no other row does
}
"""`dentry`: one row for each name. A renamed directory is one changed row."""

XATTR: Final = {
    "ino": int,
    "name": bytes,  # with its namespace: user., trusted., security., system.posix_acl_access and _default
    "value": bytes,
}
"""`xattr`: extended attributes; an inode and a name have at most one row."""

META: Final = {
    "key": str,  # primary key
    "value": int,
}
"""`meta`: one number for each of these keys.

* `sequence`: the last record of the journal that is contained here; records up to it are not to be applied again.
* `next_ino`: the number of the next inode; higher than all there ever were.
* `clean`: 1 if the filesystem was closed in order, everything is on the disk, and nobody has it open. A larger number
  if so but for the disk: it stands for the boot of the host, and is as good until the next. Else, and with 0,
  everything is compared with data/ at the next open.
* `data_device`, `data_ino`: st_dev and st_ino of `data/`. Others mean that the tree was copied: all bindings are void.
* `default_uid`, `default_gid`: who owns what was put under data/ by hand.
* `posix_acl`: 1 if the guest's kernel is to keep and enforce access control lists. It then asks for one with
  each file that it sees, which makes listings half as fast; so they are off until somebody wants or imports one.
* `importing`: 1 while an import is under way; if it is found so, the import was broken off.
"""

REPAIR: Final = {
    "id": int,  # primary key
    "at_ns": int,  # when
    "what": str,  # one line: the path, what was found, and what was done
}
"""`repair`: what was mended without being asked, the latest `REPAIRS_KEPT` of it."""

REPAIRS_KEPT: Final = 1000

IS_DIRECTORY: Final = "mode & 61440 = 16384"
"""S_ISDIR, as the index on directories has it."""

META_START: Final = {
    "sequence": 0,
    "next_ino": 2,
    "clean": 1,
    "data_device": 0,
    "data_ino": 0,
    "default_uid": 0,
    "default_gid": 0,
    "posix_acl": 0,
    "importing": 0,
}


def prepare(connection: sqlite3.Connection, path: object) -> None:
    """Create the schema in an empty database, or bring an older one up to date. UmlError for any other's or a newer."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == USER_VERSION:
        return
    if version > USER_VERSION:
        raise UmlError(f"{path}: schema version {version} is newer than this program", "use a newer umlfs")
    if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise UmlError(f"{path}: no database of humfs", "move it away, it belongs to something else")
    from sqlite_utils import Database

    create(Database(connection))


def create(database: Database) -> None:
    """The tables and indexes, empty but for `meta`."""
    inode = database.table("inode")
    inode.create(INODE, pk="ino", not_null=set(INODE) - {"ino", "host_ino"}, defaults={"host_ctime_ns": 0})
    inode.create_index(["host_ino"])
    database.execute(f"CREATE INDEX inode_directories ON inode (ino) WHERE {IS_DIRECTORY}")  # few among many
    dentry = database.table("dentry")
    dentry.create(DENTRY, pk="id", not_null={"parent", "name", "ino"})
    dentry.create_index(["parent", "name"], unique=True)
    dentry.create_index(["parent"], index_name="dentry_in_order")  # rows of a directory by id, for listings
    dentry.create_index(["ino"])
    database.table("xattr").create(XATTR, pk=("ino", "name"), not_null={"value"})
    database.table("meta").create(META, pk="key", not_null={"value"})
    database.table("meta").insert_all({"key": key, "value": value} for key, value in META_START.items())
    database.table("repair").create(REPAIR, pk="id", not_null={"at_ns", "what"})
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {USER_VERSION}")
