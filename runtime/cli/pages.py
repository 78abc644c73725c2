"""The pages of the documentation."""

from __future__ import annotations

from pathlib import Path


def topics() -> dict[str, Path]:
    """The pages of the documentation by their names: those installed, or those of a checkout."""
    from importlib.resources import files

    here = Path(str(files("umlfs")))
    for folder in (here / "_docs", here.parent / "docs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.md")) if path.stem != "README"}
    return {}
