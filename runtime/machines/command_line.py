"""The classic command line of a UML kernel, word by word, as a `Description`.

As kernels take it (`linux.uml --help`), and with the forms of the HOWTO that they have forgotten: those are taken as
they were meant, and a remark says so. What a kernel does not know it is asked.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from runtime.consoles import spec as lines
from runtime.kernels.features import OWN, features
from runtime.kernels.kernel import find_kernel, has_name, kernel_name
from runtime.machines.description import SUFFIX, Description, load, root_disk
from runtime.machines.directory import check_umid
from runtime.process.memory import parse_size
from umlfs import ubd
from umlfs.errors import UmlError, UsageError

_DEVICE: Final = re.compile(r"[a-z]+(?=\d)")
"""The name of a device, before its number."""
KNOWN: Final = (
    *("mem=", "umid=", "uml_dir=", "root=", "rootfstype=", "rootflags=", "init=", "mconsole=notify:", "xterm="),
    *("hostfs=", "iomem=", "initrd=", "dtb=", "tty_log_dir=", "stderr=", "con=", "ssl=", "ubd=", "eth0=", "vec0:"),
    *("loglevel=", "panic=", "rdinit=", "console=", "nice=", "lpj=", "time-travel=", "ncpus=", "seccomp="),
    *("quiet", "debug", "noreboot", "ro", "rw", "nosysemu", "ssl-non-raw", "fake_ide", "single"),
)
"""Words that are near to one of these, and none of them, are mistyped."""
_NUMBERED: Final = re.compile(r"(eth|vec)\d+(:|\Z)")
"""Devices, of which one stands for all in `KNOWN`."""
_TRANSPORT: Final = re.compile(r"eth\d+=(\w+)", re.ASCII)
NEAR: Final = 0.75
KERNEL_WORDS: Final = frozenset(
    {*("quiet", "debug", "nosysemu", "ssl-non-raw", "ro", "rw", "noreboot"), *("nosmp", "nokaslr", "nomodule")}
)
"""Words without a value that are the kernel's own, not the init's."""


@dataclass(slots=True)
class _Reader:
    """The words taken so far."""

    description: Description
    remarks: list[str] = field(default_factory=list)
    root: str = ""
    """What `root=` says."""
    knows: Callable[[str], bool] = lambda word: False
    """Whether the kernel has a name for itself."""

    def set(self, **changes: Any) -> None:
        self.description = replace(self.description, **changes)

    def append(self, name: str, *words: str) -> None:
        self.set(**{name: (*getattr(self.description, name), *words)})

    def take(self, word: str) -> None:
        """Take one word. UsageError for one that cannot be meant."""
        name, equals, value = word.partition("=")
        if name in _TAKERS and equals:
            _TAKERS[name](self, value)
        elif word in _FLAGS:
            self.set(**_FLAGS[word])
        elif word.startswith("udb") or (word.startswith("ubd") and equals):
            self.take_ubd(word)
        elif (name.startswith(("con", "ssl")) and equals and name[3:].isdigit()) or name in ("con", "ssl"):
            lines.parse(word)
            self.append("consoles", word)
        else:
            self.pass_on(word, name, bool(equals))

    def take_ubd(self, word: str) -> None:
        if word.startswith("ubd="):
            self.append("arguments", word)
            return
        spec = ubd.parse(word)
        if os.path.isdir(spec.file) and spec.unit == 0 and spec.backing is None:
            self.remarks.append(f"{word}: an old form, taken as --root hostfs:{spec.file}")
            self.set(root=f"hostfs:{spec.file}")
            return
        self.append("ubds", word)

    def pass_on(self, word: str, name: str, has_value: bool) -> None:
        """A word that is not ours: the kernel's, or that of the guest's init."""
        if remark := self.unknown_to_the_kernel(word, name):
            self.remarks.append(remark)
        elif (near := _near(word, name, has_value)) and not self.knows(name):
            raise UsageError(f"{word}: not known; did you mean {near}?", f"after -- it goes to the kernel: -- {word}")
        self.give(word, has_value)

    def unknown_to_the_kernel(self, word: str, name: str) -> str:
        """What to say of a word that is UML's own, and not known to the kernel that is booted; empty if it is."""
        device = _DEVICE.match(name)
        own = device[0] if device and device[0] in OWN else name
        if own not in OWN:
            return ""
        try:
            kernel = find_kernel(self.description.kernel or None)
        except UmlError:  # it is said when the kernel is to be started
            return ""
        known, transport = features(kernel), _TRANSPORT.match(word)
        if known.knows(own) and (transport is None or known.has_transport(transport[1])):
            return ""
        return f"{word}: Linux {kernel.version} ({kernel_name(kernel)}) does not know it: the word does nothing"

    def give(self, word: str, has_value: bool) -> None:
        """Give the kernel, and the guest's init, a word as it is."""
        if not has_value and "." not in word and word not in KERNEL_WORDS and ":" not in word:
            self.append("init_arguments", word)
        self.append("arguments", word)

    # Single words -----------------------------------------------------------------------------

    def take_root(self, value: str) -> None:
        self.root = value
        found = root_disk(value)
        if found is not None:
            self.set(root_device=found[0])
            self.remarks += filter(None, [found[1]])

    def take_mconsole(self, value: str) -> None:
        kind, _, path = value.partition(":")
        if kind != "notify" or not path:
            raise UsageError(f"mconsole={value}: Unknown option", "write mconsole=notify:SOCKET")
        self.set(notify=path)

    def take_hostfs(self, value: str) -> None:
        self.append("arguments", f"hostfs={value}")

    def finish(self) -> Description:
        """The whole. UsageError if its parts contradict each other."""
        it = self.description
        if it.initrd:
            return self.finish_initrd(it)
        if it.root_type in ("hostfs", "humfs") and not it.root:
            path, *options = (it.root_flags or "/").split(",")
            if options:
                raise UsageError(f"rootflags={it.root_flags}: options of the kernel's hostfs", "give a directory alone")
            self.remarks.append(f"rootfstype={it.root_type}: taken as --root {it.root_type}:{path}")
            self.set(root=f"{it.root_type}:{path}", root_device="", root_type="", root_flags="")
        elif not it.root and not self.root and any(ubd.parse(word).unit == 0 for word in it.ubds):
            self.set(root_device="ubda")
        elif not it.root and self.root and not it.root_device:
            raise UsageError(f"root={self.root}: not a root that umlfs can mount", "use root=/dev/ubda, or --root SRC")
        return self.description

    def finish_initrd(self, it: Description) -> Description:
        """The initrd finds the root: what names it goes to the kernel, whose command line the initrd reads."""
        named = {"root": self.root, "rootfstype": it.root_type, "rootflags": it.root_flags, "init": it.init}
        self.append("arguments", *(f"{name}={value}" for name, value in named.items() if value))
        self.set(root_device="", root_type="", root_flags="", init=None)
        return self.description


def _near(word: str, name: str, has_value: bool) -> str:
    """The known word that this one is likely meant to be; empty if there is none."""
    text = f"{name}=" if has_value else word
    if text in KNOWN or "." in name or _NUMBERED.match(name):
        return ""
    from difflib import get_close_matches  # few have a typo to wait for

    return "".join(get_close_matches(text, KNOWN, n=1, cutoff=NEAR))


_Taker = Callable[[_Reader, str], None]


def _sets(name: str) -> _Taker:
    def take(reader: _Reader, value: str) -> None:
        reader.set(**{name: value})

    return take


def _take_memory(reader: _Reader, value: str) -> None:
    reader.set(memory=parse_size(value))


def _take_umid(reader: _Reader, value: str) -> None:
    reader.set(umid=check_umid(value))


_TAKERS: Final[dict[str, _Taker]] = {
    "mem": _take_memory,
    "umid": _take_umid,
    "uml_dir": _sets("uml_dir"),
    "root": _Reader.take_root,
    "rootfstype": _sets("root_type"),
    "rootflags": _sets("root_flags"),
    "init": _sets("init"),
    "xterm": _sets("xterm"),
    "tty_log_dir": _sets("tty_log_dir"),
    "mconsole": _Reader.take_mconsole,
    "initrd": _sets("initrd"),
    "hostfs": _Reader.take_hostfs,
    "seccomp": _sets("seccomp"),
    "time-travel": _sets("time_travel"),
}
_FLAGS: Final[dict[str, dict[str, object]]] = {
    "noreboot": {"reboot": False},
    "ro": {"read_only": True},
    "rw": {"read_only": False},
}


def parse(
    words: Iterable[str], start: Description | None = None, literal: Iterable[str] = ()
) -> tuple[Description, list[str]]:
    """What a kernel's command line describes, on top of `start`, and remarks for the person. The words in `literal` go
    to the kernel as they are. UsageError, also for a word that is nearly one that is known here."""
    start = start or Description()
    reader = _Reader(start, [], knows=lambda name: _kernel_knows(start.kernel, name))
    for word in words:
        reader.take(word)
    for word in literal:
        reader.give(word, "=" in word)
    return reader.finish(), reader.remarks


def _kernel_knows(kernel: str, name: str) -> bool:
    with contextlib.suppress(UmlError):
        return has_name(find_kernel(kernel or None), name)
    return False


def describe(
    words: Sequence[str], given: Mapping[str, object], literal: Sequence[str] = ()
) -> tuple[Description, list[str]]:
    """What the words of a command line describe, the first of which may be a description's file, with what options
    have `given` on top of that file: None for nothing; lists are added to the file's. The words in `literal` go to the
    kernel as they are. UmlError, UsageError."""
    start = Description()
    if words and words[0].endswith(SUFFIX) and "=" not in words[0]:
        start, words = load(Path(words[0])), words[1:]
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, tuple):
            changes[name] = (*getattr(start, name), *value)
        elif value is not None:
            changes[name] = value
    return parse(words, replace(start, **changes), literal)
