"""Checking a humfs directory that nobody has open: what differs between files and metadata, and mending it."""

from __future__ import annotations

import os
from pathlib import Path

from humfs import damage, schema
from humfs import superblock as superblocks
from humfs.database import unusable
from humfs.findings import Finding, Kind
from humfs.host import ORPHANS
from humfs.lock import TreeLock
from humfs.volume import Progress, Volume, no_progress
from umlfs.errors import UmlError


def check(root: Path, *, repair: bool = False, progress: Progress = no_progress) -> list[Finding]:
    """Compare everything; returns what was found. With `repair` it is also mended, durably, and written down.

    What a killed server left in its journal is applied first, in either case: that is no damage. Without
    `repair` nothing else is changed. A damaged database is made anew from what can be read of it and from data/;
    without `repair` nothing more can be compared then. UmlError if the directory is in use or cannot be opened at all.
    """
    findings = _check_database(root, repair=repair)
    if findings and not repair:
        return findings
    volume = Volume(root, recover=False, progress=progress)
    try:
        was_clean = volume.was_clean
        counted = volume.count_used()
        if was_clean and counted != volume.superblock.used:
            findings.append(Finding(Kind.SPACE, "/", f"{volume.superblock.used} bytes, counted {counted}"))
        volume.reconcile(findings.append, progress, change_host=repair)
        if was_clean and os.listdir(root / ORPHANS):
            findings.append(Finding(Kind.UNREACHABLE, f"/{ORPHANS}", "files without names"))
        if volume.store.meta["importing"]:
            findings.append(Finding(Kind.IMPORT, "/"))
        if repair:
            volume.store.set_meta(importing=0)
            volume.used = volume.count_used()
            volume.settle(findings)
        else:
            volume.store.rollback()
    except OSError as error:
        volume.close(clean=False)
        raise _explained(volume, error) from error
    except BaseException:
        volume.close(clean=False)
        raise
    volume.close(clean=repair)
    return findings


def _explained(volume: Volume, error: OSError) -> UmlError:
    if error.filename == os.fspath(volume.store.path):
        return unusable(volume.store.path, error)
    where = os.fsdecode(error.filename) if isinstance(error.filename, bytes | str) else volume.root
    return UmlError(f"{where}: {error.strerror}", "mend that on the host, and check again")


def _check_database(root: Path, *, repair: bool) -> list[Finding]:
    """The database's own consistency, before anything else looks into it."""
    path = root / schema.FILE
    if superblocks.read(root).metadata != superblocks.SQLITE or not path.exists():
        return []
    lock = TreeLock(root)
    try:
        problems = damage.problems(path)
        if not problems or not repair:
            return [Finding(Kind.DATABASE, path.name, text) for text in problems]
        from humfs.rebuild import rebuild

        return rebuild(root, problems)
    except OSError as error:
        raise unusable(path, error) from error
    finally:
        lock.close()
