"""Checking a humfs directory that nobody has open: what differs between files and metadata, and mending it."""

from __future__ import annotations

import os
from pathlib import Path

from humfs.database import unusable
from humfs.findings import Finding, Kind
from humfs.host import ORPHANS
from humfs.volume import Progress, Volume, no_progress
from umlfs.errors import UmlError


def check(root: Path, *, repair: bool = False, progress: Progress = no_progress) -> list[Finding]:
    """Compare everything; returns what was found. With `repair` it is also mended, durably, and written down.

    What a killed server left in its journal is applied first, in either case: that is no damage. Without
    `repair` nothing else is changed. UmlError if the directory is in use or cannot be opened at all.
    """
    volume = Volume(root, recover=False, progress=progress)
    findings: list[Finding] = []
    try:
        _check_database(volume, findings)
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
    return UmlError(f"{error.filename or volume.root}: {error.strerror}", "mend that on the host, and check again")


def _check_database(volume: Volume, findings: list[Finding]) -> None:
    """The database's own consistency. UmlError if it has none: then no row is to be trusted."""
    problems = [text for (text,) in volume.store.select("PRAGMA integrity_check(10)") if text != "ok"]
    if not problems:
        return
    indexes = all("index" in text for text in problems)
    if not indexes:
        raise UmlError(f"{volume.store.path}: damaged ({problems[0]})", "restore it from a copy")
    findings.extend(Finding(Kind.DATABASE, str(volume.store.path.name), text) for text in problems)
    volume.store.begin()
    volume.store.execute("REINDEX")
