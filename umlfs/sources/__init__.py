"""`SRC` words to providers: see `umlfs.sources.source`."""

from umlfs.sources.kind import OpenOptions, SourceKind, refuse_options
from umlfs.sources.source import GROUP, NOT_WRITABLE, Source, Unopened, as_source, detect, ends, parse, schemes, split

__all__ = [
    "GROUP",
    "NOT_WRITABLE",
    "OpenOptions",
    "Source",
    "SourceKind",
    "Unopened",
    "as_source",
    "detect",
    "ends",
    "parse",
    "refuse_options",
    "schemes",
    "split",
]
