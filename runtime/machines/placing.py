"""The paths in words that describe a machine, each by what the word is."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

from umlfs import ubd
from umlfs.errors import UsageError
from umlfs.sources.places import Place, placed

_CHANNELS: Final = ("log", "unix")
"""Channels of consoles that have a path."""


def kernel(text: str, place: Place) -> str:
    """A kernel's file; a name that is none stays."""
    return place(text) if "/" in text or (text and os.path.isfile(place(text))) else text


def mount(word: str, place: Place) -> str:
    """`DIR=SRC[:OPTION]...`"""
    directory, equals, source = word.partition("=")
    return f"{directory}{equals}{placed(source, place)}" if equals else word


def disk(word: str, place: Place) -> str:
    """`ubdN=FILE[,BACKING]`. What is none stays: it is an error later."""
    try:
        spec = ubd.parse(word)
    except UsageError:
        return word
    backing = None if spec.backing is None else _in_words(spec.backing, place)
    return str(replace(spec, file=_in_words(spec.file, place), backing=backing))


def _in_words(path: str, place: Place) -> str:
    """A path of a disk; from the working directory where the whole has what separates words."""
    found = placed(path, place)
    return os.path.relpath(found) if "://" not in found and ("," in found or ":" in found) else found


def console(word: str, place: Place) -> str:
    """`con0=CHANNEL`, or two of them."""
    line, equals, channels = word.partition("=")
    return f"{line}{equals}{','.join(_channel(each, place) for each in channels.split(','))}"


def _channel(word: str, place: Place) -> str:
    kind, _, path = word.partition(":")
    return f"{kind}:{place(path)}" if kind in _CHANNELS and path else word


def clock(word: str, place: Place) -> str:
    """`ext:ID:SOCKET`"""
    kind, _, rest = word.partition(":")
    number, colon, path = rest.partition(":")
    return f"{kind}:{number}:{place(path)}" if colon and path else word
