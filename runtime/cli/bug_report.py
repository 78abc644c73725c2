"""`uml bug-report`: what a maintainer needs to know, and nothing private."""

from __future__ import annotations

import json
import os
import platform

import click


@click.command("bug-report")
def command() -> None:
    """Print what a report of a fault should begin with: versions, and what 'uml doctor' finds.

    Your name, your home and this host's name are left out. Read it before you send it.

    \b
    Example:
      uml bug-report > report.json
    """
    from dataclasses import asdict
    from importlib.metadata import version

    from runtime.doctor.checks import diagnose

    packages = ("umlfs", "trio", "pyfuse3", "click", "rich", "psutil")
    report = {
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "system": {"kernel": platform.release(), "machine": platform.machine(), "distribution": _distribution()},
        "root": os.geteuid() == 0,
        "processors": os.cpu_count(),
        "checks": [asdict(each) for each in diagnose(None)],
    }
    click.echo(_without_names(json.dumps(report, indent=2, default=str)))


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _without_names(text: str) -> str:
    """`text` with what tells who and where this is replaced."""
    private = {os.path.expanduser("~"): "~", platform.node(): "HOST", os.environ.get("USER", ""): "USER"}
    for name, shown in private.items():
        if len(name) > 3 and name != "root":
            text = text.replace(name, shown)
    return text
