"""The kind of source `fs:URL`."""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

from umlfs.errors import UmlError, UsageError
from umlfs.externfs.arguments import PluginArguments
from umlfs.externfs.kind import Plant, TreeKind, needed

_DRIVERS: Final = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gs"),
    "gcs": ("gcsfs", "gs"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
    "sftp": ("paramiko", "sftp"),
    "ssh": ("paramiko", "sftp"),
    "github": ("requests", "github"),
}
"""What fsspec needs besides itself, and the extra of ours that has it."""
_PASSED: Final = {
    "user": "username",
    "password": "password",
    "keyfile": "key_filename",
    "key": "key",
    "secret": "secret",
    "token": "token",
}
_LOCAL: Final = ("file", "local")
_MIB: Final = 1 << 20


class FsKind(TreeKind):
    """Whatever fsspec reaches."""

    scheme = "fs"
    summary = "what fsspec reaches: s3://, gs://, http://, sftp://, github://, hdfs://, zip://…::…"
    example = "uml mount fs:s3://bucket/prefix ~/bucket"
    own_options: ClassVar = {
        "endpoint": "the URL of an S3 server that is not Amazon's",
        "anon": "without credentials",
        "user": "the name to log in by (sftp)",
        "password": "the password (sftp)",
        "keyfile": "the file of the private key (sftp)",
        "key": "the access key (s3)",
        "secret": "the secret key (s3)",
        "token": "the token (s3, gs, github)",
        "block": "MiB that are fetched in one request and kept (block=8)",
        "blocks": "how many such blocks each open file keeps (blocks=8)",
        "cache": "a directory of this host where whole files are kept, and used again",
    }

    def plant(self, given: PluginArguments) -> Plant:
        url = given.argument
        protocols = re.findall(r"([a-z][a-z0-9+.-]*)://", url)
        if not protocols:
            raise UsageError(f"fs:{url}: no URL", "write fs:s3://BUCKET/PREFIX, fs:https://HOST/DIR, …")
        if protocols[0] in _LOCAL:
            raise UsageError(f"fs:{url}: a directory of this host", "write hostfs:DIR")
        for protocol in protocols:
            module, extra = _DRIVERS.get(protocol, ("fsspec", "fs"))
            needed("fsspec", extra, f"fs:{protocol}:")
            needed(module, extra, f"fs:{protocol}:")
        from umlfs.externfs.fs.nodes import RemoteDirectory
        from umlfs.externfs.fs.store import Store

        fs, root = _opened(url, given, protocols)
        block = int(given.number(self.scheme, "block", 8) * _MIB)
        blocks = int(given.number(self.scheme, "blocks", 8))
        store = Store(fs, root, block=block, blocks=blocks, writable=given.writable)
        return Plant(RemoteDirectory(store, store.root, {"type": "directory"}), store.close)


def _storage_options(given: PluginArguments, protocol: str) -> dict[str, Any]:
    """What the library is told. Credentials that are not here it looks for where it always does."""
    options: dict[str, Any] = {name: given.values[ours] for ours, name in _PASSED.items() if ours in given.values}
    if "anon" in given.values:
        options["anon"] = True
    if protocol.startswith("s3"):
        if "endpoint" in given.values:
            options["client_kwargs"] = {"endpoint_url": given.values["endpoint"]}
        options["use_listings_cache"] = False
    if protocol in ("http", "https"):
        options["encoded"] = True
        options["use_listings_cache"] = False
    return options


def _opened(url: str, given: PluginArguments, protocols: list[str]) -> tuple[Any, str]:
    import fsspec.core

    options = _storage_options(given, protocols[0])
    if "cache" in given.values:
        options = {protocols[0]: options, "filecache": {"cache_storage": given.values["cache"], "check_files": True}}
        url = f"filecache::{url}"
    try:
        fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
        return fs, str(root)
    except ImportError as error:
        raise UmlError(f"fs:{url}: {error}", "pip install what it names") from None
    except Exception as error:
        raise UmlError(f"fs:{url}: {error or type(error).__name__}", "name a URL that can be reached") from None


kind: Final = FsKind()
