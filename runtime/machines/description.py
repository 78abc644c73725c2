"""What a machine is: everything that its command line says, in one value that can be kept in a file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from runtime.jail import layers
from runtime.jail.layers import Mode
from runtime.kernels.execution import SECCOMP
from runtime.machines import placing
from runtime.process.memory import DEFAULT, parse_size
from umlfs.errors import UmlError, UsageError
from umlfs.host.newfile import is_special, write_new
from umlfs.sources.places import Place, for_directory, from_directory, placed

SUFFIX: Final = ".toml"
SIZE_MAX: Final = 1 << 20
"""Bytes of a description's file."""
DRIVERS: Final = ("virtio", "native")
SECTION: Final = ("networks", "publish")
"""What stands in a section of its own, [network]."""
CHOICES: Final = {"ubd_driver": DRIVERS, "jail": tuple(map(str, Mode)), "seccomp": SECCOMP}
"""The keys that take one of a few words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A machine. Relative paths are from the working directory; in a file, from the place of that file."""

    umid: str = ""
    """Its name; empty for one that is made up."""
    uml_dir: str = ""
    """Where its directory goes; empty for ~/.uml."""
    kernel: str = ""
    memory: int = DEFAULT
    """In bytes."""
    root: str = ""
    """The source of its root; empty for the disk `root_device`, and if that is empty too this host's own /, of which
    every change is thrown away."""
    root_device: str = ""
    """The disk, and the partition, that is its root: `ubda`, `ubdb1`."""
    root_type: str = ""
    """The filesystem on `root_device`; empty to find out."""
    root_flags: str = ""
    """Mount options of `root_device`."""
    initrd: str = ""
    """The file of an initrd that is the whole guest, or finds its root by itself: then there is no agent of ours."""
    read_only: bool = False
    """The root is mounted read-only, until the guest mounts it otherwise."""
    throwaway: bool = False
    """Changes to the root go to memory, and are gone with the machine."""
    init: str | None = None
    """What becomes process 1. None: the root's own /sbin/init, else our agent; empty: our agent."""
    init_arguments: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    """`DIR=SRC[:ro]` each."""
    user: str = ""
    """Whose in the guest the caller's files are, a name or a number; empty for root."""
    slots: int = 2
    """How many further filesystems can come while it runs, and how many disks."""
    ubds: tuple[str, ...] = ()
    """`ubd0=FILE` each."""
    ubd_driver: str = DRIVERS[0]
    """`virtio`, or `native` for the kernel's own."""
    networks: tuple[str, ...] = ()
    """`user`, `none`, `NAME[:OPTIONS]` each; empty for `user` where this host has an engine for it."""
    publish: tuple[str, ...] = ()
    """`[ADDR:]PORT:GUEST[/udp]` each."""
    descriptors: tuple[str, ...] = ()
    """`N` or `N-M` each: what the kernel inherits besides, for cards that come while it runs."""
    consoles: tuple[str, ...] = ()
    """`con0=CHANNEL`, `ssl=CHANNEL` each."""
    xterm: str = ""
    """EMULATOR,TITLE-SWITCH,EXEC-SWITCH"""
    tty_log_dir: str = ""
    """Where a terminal log of each line goes; empty for none."""
    common_log: str = ""
    """A file to which what its kernel says is appended, each line with its name: that of several machines."""
    notify: str = ""
    """A socket of somebody's who wants to hear what the kernel tells."""
    reboot: bool = True
    """A guest that restarts boots again; else that ends the machine."""
    arguments: tuple[str, ...] = ()
    """Further words for the kernel."""
    on_panic: str = ""
    """A shell command for when the guest panics."""
    on_hang: str = ""
    """A shell command for when the guest does not feed its watchdog, or the kernel does not answer."""
    hang_seconds: int = 60
    """After how many seconds without an answer the kernel counts as hung; 0 for never."""
    jail: str = str(layers.DEFAULT)
    """What keeps its kernel process from the host: `auto`, `strict` or `off`."""
    seccomp: str = SECCOMP[0]
    """Whether processes of the guest do without ptrace: `auto`, `on` or `off`."""
    smp: int = 1
    """How many processors the guest has."""
    time_travel: str = ""
    """The guest's clock, if it is not the host's: `inf-cpu` or `ext:ID:SOCKET`."""
    lock_modules: bool = False
    """Its kernel takes no more modules once it is up."""
    cpus: str = ""
    """The processors of the host that it may use: `0-2,5`. Empty for all."""
    nice: int = 0
    numa: str = ""
    """The node of the host that its memory comes from."""
    cpu_quota: str = ""
    """How much of a processor it gets: `50%`."""
    memory_max: str = ""
    """How much of the host's memory it gets at most."""
    share: str = ""
    """How much of the host it gets, by itself or with others: `cpu=2,mem=1G,io=50`, `NAME:cpu=2`."""

    @property
    def boots_host(self) -> bool:
        """Whether the root is a snapshot of this host's own /."""
        return not self.root and not self.root_device and not self.initrd


_PATHS: Final = ("uml_dir", "initrd", "tty_log_dir", "common_log", "notify")
"""Keys that hold a path and nothing else."""
_WORDS: Final = {"mounts": placing.mount, "ubds": placing.disk, "consoles": placing.console}
"""Keys that hold lists of words, and what changes the paths in one."""


def with_paths(description: Description, place: Place) -> Description:
    """The description with `place` done to the paths of this host in it. The kernel's own words (`arguments`) and shell
    commands stay as they are."""
    it = description
    changes: dict[str, Any] = {key: place(getattr(it, key)) for key in _PATHS if getattr(it, key)}
    for key, change in _WORDS.items():
        changes[key] = tuple(change(word, place) for word in getattr(it, key))
    return replace(
        it,
        **changes,
        kernel=placing.kernel(it.kernel, place),
        root=placed(it.root, place),
        time_travel=placing.clock(it.time_travel, place),
    )


def save(description: Description, path: Path) -> None:
    """Write the description to a file, its paths for the file's place. UmlError if that cannot be."""
    try:
        if is_special(str(path)):
            path.write_text(encode(with_paths(description, for_directory("."))), "utf-8")
        else:
            write_new(str(path), encode(with_paths(description, for_directory(str(path.parent)))).encode())
    except OSError as error:
        raise UmlError(f"{path}: cannot be written: {error.strerror}", "name a file that you may write") from error


def load(path: Path) -> Description:
    """The description in a file, paths in it from the file's place. UmlError if it cannot be read, UsageError for what
    it cannot mean."""
    import tomllib  # most machines come without a file

    try:
        with path.open("rb") as file:
            text = file.read(SIZE_MAX).decode()
        return with_paths(decode(tomllib.loads(text)), from_directory(str(path.parent)))
    except OSError as error:
        raise UmlError(f"{path}: cannot be read: {error.strerror}", "name one that 'uml boot --save' made") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: no TOML: {error}", "'uml boot --save FILE' writes one that is") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error.what}", error.way_out) from None


# TOML -----------------------------------------------------------------------------------------


def encode(description: Description) -> str:
    """As TOML: a line for each thing that is not as it is by default. UsageError for what TOML cannot hold."""
    default = Description()
    lines = ["# A machine of umlfs: boot it with `uml boot FILE`.\n"]
    section = [f"{name} = {_value(getattr(description, name))}\n" for name in SECTION if getattr(description, name)]
    for field in fields(Description):
        value = getattr(description, field.name)
        if field.name in SECTION or value == getattr(default, field.name):
            continue
        if field.name == "memory" and value % (1 << 20) == 0:
            value = f"{value >> 20}M"
        lines.append(f"{field.name} = {_value(value)}\n")
    if section:
        lines += ["\n[network]\n", *section]
    return "".join(lines)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} cannot be saved: it is no UTF-8", "give the file another name") from None
    # A string of JSON is one of TOML, but for the one character that JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def decode(table: dict[str, Any]) -> Description:
    """The description that a table of TOML is. UsageError for an unknown key, or a value of the wrong kind."""
    known = {field.name: field for field in fields(Description)}
    section = table.get("network", {})
    if not isinstance(section, dict) or any(name not in SECTION for name in section):
        raise UsageError("[network] is not as it should be", f"it takes {' and '.join(SECTION)}")
    table = {**{key: value for key, value in table.items() if key != "network"}, **section}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"unknown key '{key}'", f"known are {', '.join(known)}")
        values[key] = _checked(key, str(known[key].type), value)
    for key, known_values in CHOICES.items():
        if key in values and values[key] not in known_values:
            raise UsageError(f"{key} = '{values[key]}'", f"known are {', '.join(known_values)}")
    return Description(**values)


_KINDS: Final = {"str": str, "str | None": str, "bool": bool, "int": int}


def _checked(key: str, kind: str, value: object) -> object:
    if key == "memory" and isinstance(value, str):
        return parse_size(value)
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return tuple(value)
        raise UsageError(f"'{key}' is not a list of strings", f'write it as {key} = ["…"]')
    if type(value) is not _KINDS[kind]:
        raise UsageError(f"'{key}' is not of the right kind", f"it takes a {_KINDS[kind].__name__}")
    return value


# The root -------------------------------------------------------------------------------------

_NUMBERED: Final = re.compile(r"(?:/dev/)?ubd/?(\d{1,2})\Z")
_LETTERED: Final = re.compile(r"(?:/dev/)?ubd([a-p])(\d{1,3})?\Z")
_DEVICE: Final = re.compile(r"(\d{1,3}):(\d{1,3})\Z")
_HEXADECIMAL: Final = re.compile(r"(?:0x)?62([0-9a-f]{2})\Z")
MAJOR: Final = 98
"""Of ubd devices; 16 minors each."""
MINORS: Final = 16


def root_disk(text: str) -> tuple[str, str] | None:
    """The ubd device that `root=` names, and what to tell the person of that word; None if it names none.

    The word may be of a form that the 6.1 kernel does not know (`/dev/ubd0`).
    """
    if found := _LETTERED.match(text):
        return f"ubd{found[1]}{found[2] or ''}", ""
    if found := _NUMBERED.match(text):
        if int(found[1]) >= MINORS:
            return None
        name = _disk(int(found[1]) * MINORS)
        return name, f"root={text}: an old form, taken as root=/dev/{name}"
    if (found := _DEVICE.match(text)) and int(found[1]) == MAJOR and int(found[2]) < MINORS * MINORS:
        return _disk(int(found[2])), ""
    if found := _HEXADECIMAL.match(text.lower()):
        return _disk(int(found[1], 16)), ""
    return None


def _disk(minor: int) -> str:
    return f"ubd{chr(ord('a') + minor // MINORS)}{minor % MINORS or ''}"
