"""`SRC` words to providers: see `umlfs.sources.source`."""

from umlfs.sources.source import GROUP, OpenOptions, Source, SourceKind, parse, schemes

__all__ = ["GROUP", "OpenOptions", "Source", "SourceKind", "parse", "schemes"]
