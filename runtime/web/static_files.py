"""The files of the page, as they are shipped."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

KINDS: Final = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}


@cache
def static_files() -> dict[str, tuple[bytes, str]]:
    """The contents and media types by the paths that a browser asks for. Nothing else can be asked for."""
    root = files("runtime.web") / "static"
    found: dict[str, tuple[bytes, str]] = {}
    for folder, prefix in ((root, "/static"), (root / "vendor", "/static/vendor")):
        for entry in folder.iterdir():
            kind = KINDS.get(entry.name.rpartition(".")[2])
            if entry.is_file() and kind is not None:
                found[f"{prefix}/{entry.name}"] = (entry.read_bytes(), f"{kind}; charset=utf-8")
    found["/"] = found["/static/index.html"]
    found["/favicon.ico"] = found["/static/icon.svg"]
    return found
