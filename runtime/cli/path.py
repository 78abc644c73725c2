"""The type of options and arguments that are paths."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

PATH: Final = click.Path(path_type=Path, readable=False)
"""A file or directory. Whether it may be read is told by who opens it: click would only point to --help."""
