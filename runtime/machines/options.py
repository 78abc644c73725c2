"""From a description to what `runtime.machine` takes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

from runtime.consoles.channels.base import Xterm
from runtime.consoles.spec import Line, LineKind, Specs, parse_all
from runtime.guest import Init
from runtime.jail.layers import Mode
from runtime.kernels.execution import Execution
from runtime.machine import owner, parsing
from runtime.machine.disk import RootDisk
from runtime.machine.machine import Options
from runtime.machines.description import Description
from runtime.network import legacy, user, vector
from runtime.network import parsing as net
from runtime.network.contract import Network
from umlfs import ubd
from umlfs.errors import UsageError

TERMINALS: Final = range(8, 16)
"""Consoles that are kept for commands on terminals, as far as nothing else is on them."""
BACKGROUND: Final = ("con0=null", "con1=null")
"""The consoles of a machine that has no terminal and names none: they are there for `uml console`."""
FOREGROUND: Final = ("con0=null,fd:1", "con1=fd:0,fd:1")
"""On a terminal: the kernel's words, and the guest's first console, where a login prompt is."""
CHOSEN_INIT: Final = ("con0=fd:0,fd:1", "con1=null")
"""On a terminal, with an init that was named: a shell perhaps, which talks on the boot console."""
SLOTS_MAX: Final = 16
"""For directories, and as many for disks. Each takes some 50 of the 4096 bytes of the kernel's command line."""

_PARTITION: Final = re.compile(r"(ubd[a-p])(\d*)\Z")


def console_specs(description: Description, *, on_terminal: bool) -> Specs:
    """What the machine's lines are; `on_terminal` if it is booted from one. UsageError."""
    given = list(description.consoles)
    settings = parse_all(given)
    if any(kind is LineKind.CONSOLE for kind in settings.defaults) or any(
        line.kind is LineKind.CONSOLE for line in settings.lines
    ):
        missing = [word for word in BACKGROUND if Line.parse(word.partition("=")[0]) not in settings.lines]
        if LineKind.CONSOLE in settings.defaults:
            missing = []
        return parse_all([*given, *missing])
    here = CHOSEN_INIT if description.init else FOREGROUND
    return parse_all([*(here if on_terminal else BACKGROUND), *given])


def xterm(description: Description) -> Xterm | None:
    """The emulator that `xterm=` names. UsageError for what names none."""
    if not description.xterm:
        return None
    parts = description.xterm.split(",")
    if len(parts) != 3 or not all(parts):
        raise UsageError(
            f"xterm={description.xterm}: not of three parts", "write xterm=EMULATOR,TITLE-SWITCH,EXEC-SWITCH"
        )
    return Xterm(*parts)


def machine_options(description: Description, *, arguments: Sequence[str] = (), served: Sequence[Line] = ()) -> Options:
    """The options for one boot, with further `arguments` for the kernel; the lines `served` are taken. UsageError."""
    it = description
    _check(it)
    return Options(
        root=it.root or "hostfs:/",
        root_disk=_root_disk(it),
        root_flags="ro" if it.read_only else "",
        writable=not (it.throwaway or it.boots_host),
        mounts=[parsing.mount(text) for text in it.mounts],
        owner=_owner(it),
        ubds=[ubd.parse(text) for text in it.ubds],
        native_ubd=is_native(it),
        initrd=it.initrd,
        arguments=[*_kernel_words(it), *arguments],
        memory=it.memory,
        kernel=it.kernel or None,
        jail=Mode(it.jail),
        execution=Execution(it.seccomp, it.smp, it.time_travel),
        lock_modules=it.lock_modules,
        terminals=[n for n in TERMINALS if Line(LineKind.CONSOLE, n) not in served and not it.initrd],
        slots=0 if it.initrd else it.slots,
        disk_slots=0 if is_native(it) else it.slots,
        init=Init("" if it.init is None and it.boots_host else it.init, it.init_arguments, _environment(it)),
        name=it.umid,
        networks=_networks(it),
        descriptors=_descriptors(it),
    )


def _owner(it: Description) -> tuple[int, int]:
    if not it.user:
        return owner.ROOT
    found = owner.find(it.root or "hostfs:/", it.user)
    if found is None:
        raise UsageError(f"--user {it.user}: no directory of this host says who that is", "give a number")
    return found


def card_remarks(description: Description) -> list[str]:
    """What the person should know of the cards that the kernel's own words name. UsageError."""
    it = description
    found = [_opened(word).remark for word in it.arguments if legacy.is_legacy(word) and _is_opened(it, word)]
    vectors = [vector.parse(word, jailed=_is_jailed(it)) for word in it.arguments if vector.is_vector(word)]
    found += [vector.remark(each, jailed=_is_jailed(it)) for each in vectors]
    return [remark for remark in found if remark]


def _networks(it: Description) -> list[Network]:
    """What its cards are attached to. Without a word of it, the internet, unless the kernel has cards of its own or
    nobody in the guest would set ours up."""
    words = it.networks
    if not words and (it.publish or _wants_network(it)):
        words = (net.USER,)
    if it.initrd and any(word != net.NONE for word in words):
        raise UsageError(f"initrd={it.initrd}: sets up its network itself", "give the kernel a card: vec0:…")
    return [*(_opened(word) for word in it.arguments if _is_opened(it, word)), *net.networks(words, it.publish)]


def _is_jailed(it: Description) -> bool:
    return Mode(it.jail) is not Mode.OFF


def _is_opened(it: Description, word: str) -> bool:
    """Whether a word of the kernel's names something that a jailed kernel must be given. UsageError if it is wrong."""
    if vector.is_vector(word):
        return vector.parse(word, jailed=_is_jailed(it)).transport == "tap" and _is_jailed(it)
    return legacy.is_legacy(word) and _is_jailed(it) and not it.initrd


def _is_inherited(word: str) -> bool:
    return vector.is_vector(word) and "transport=fd" in word.partition(":")[2].split(",")


def _descriptors(it: Description) -> list[int]:
    """What the kernel inherits of the caller's. UsageError."""
    found = [vector.inherited(word) for word in it.arguments if _is_inherited(word)]
    return [*dict.fromkeys([*found, *(number for text in it.descriptors for number in vector.inherited_range(text))])]


def _opened(word: str) -> Network:
    if legacy.is_legacy(word):
        return legacy.parse(word)
    return legacy.of_vector(vector.parse(word, jailed=True))


def _wants_network(it: Description) -> bool:
    cards = any(re.match(r"(vec\d+:|eth\d+=)", word) for word in it.arguments)
    return not it.initrd and not cards and user.is_there()


def is_native(description: Description) -> bool:
    """Whether the kernel's own driver takes the disks."""
    return description.ubd_driver == "native" or bool(description.initrd)


def _check(it: Description) -> None:
    if it.initrd and (it.root or it.mounts):
        raise UsageError(f"initrd={it.initrd}: mounts its root itself", "leave out --root and --mount, or the initrd")
    if it.initrd and it.lock_modules:
        raise UsageError(
            f"--lock-modules: initrd={it.initrd} is the whole guest, with nothing of ours in it",
            "have it write 1 to /proc/sys/kernel/modules_disabled itself",
        )
    if it.hang_seconds < 0:
        raise UsageError(f"--hang-after {it.hang_seconds}", "give seconds, or 0 for never")
    if not 0 <= it.slots <= SLOTS_MAX:
        raise UsageError(f"--slots {it.slots}", f"0 to {SLOTS_MAX} can be had")
    if it.root and not (it.throwaway or it.boots_host) and _is_host_root(it.root):
        raise UsageError(
            f"--root {it.root}: this host's own root: two systems would work on the same files",
            "add --throwaway, or leave out --root",
        )
    if it.root_device and it.throwaway:
        raise UsageError("--throwaway: the root is a disk", "give it a COW file: ubd0=COW,FILE, or --root raw:FILE")


def _is_host_root(root: str) -> bool:
    path = root.removeprefix("hostfs:")
    return os.path.isdir(path) and os.path.samefile(path, "/")


def _root_disk(it: Description) -> RootDisk | None:
    if it.root or not it.root_device:
        return None
    found = _PARTITION.match(it.root_device)
    if found is None:
        raise UsageError(f"root_device = '{it.root_device}': not a disk", "write it like ubda or ubda1")
    return RootDisk(found[1], found[2], it.root_type, it.root_flags)


def _kernel_words(it: Description) -> list[str]:
    """What the kernel gets to see besides what we tell it: the guest's init may read it, as systemd does."""
    words = [word for word in it.arguments if word not in ("con", "ssl") and not _is_opened(it, word)]
    return words + (["ro"] if it.read_only else [])


def _environment(it: Description) -> dict[str, str]:
    """`name=value` words that are not the kernel's own become the init's environment."""
    pairs = (word.partition("=") for word in it.arguments if "=" in word)
    return {name: value for name, _, value in pairs if name.isidentifier()}
