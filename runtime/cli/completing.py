"""What a word of a command line may become: commands, options, machines, files, partitions and names inside images."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

from runtime.host import own

SECONDS: Final = 8.0
"""How long a shell may wait for names inside an image, for which an appliance boots."""
KEPT_SECONDS: Final = 60
"""An appliance that was booted for a completion is kept so long for the next."""
MACHINES: Final = frozenset({"umid", "umids", "machine", "machines"})
"""Arguments that are machines, by their names in the code."""
PLACES: Final = frozenset(
    {
        *("word", "path", "paths", "arguments", "argv", "sources", "src", "source", "one", "other", "target"),
        *("image", "images", "file", "top", "base", "new", "a", "b"),
    }
)
"""Arguments that are files, or places inside of them."""

_BASH: Final = """\
_uml_complete() {
    local IFS=$'\\n' answer kind value
    COMPREPLY=()
    answer=$(export COMP_LINE COMP_POINT COMP_WORDBREAKS; %(variable)s=bash_complete %(program)s)
    for answer in $answer; do
        kind=${answer%%%%,*} value=${answer#*,}
        case $kind in
        more) compopt -o nospace; COMPREPLY+=("$(printf %%q "$value")") ;;
        dir | file) compopt -o filenames; COMPREPLY+=($(compgen -A $kind -- "$value")) ;;
        *) COMPREPLY+=("$(printf %%q "$value")") ;;
        esac
    done
}
complete -o nosort -F _uml_complete %(program)s
"""


class BashComplete(ShellComplete):
    """bash takes a colon for the end of a word: what comes before the last one must not be in the answer."""

    name = "bash"
    source_template = _BASH

    def source(self) -> str:
        return _BASH % {"variable": self.complete_var, "program": self.prog_name}

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        line = line[: int(os.environ.get("COMP_POINT", len(line)))]
        words = click.shell_completion.split_arg_string(line)
        incomplete = "" if not line or line[-1].isspace() else words.pop()
        self._cut = incomplete.rpartition(":")[0] + ":" if ":" in incomplete else ""
        if ":" not in os.environ.get("COMP_WORDBREAKS", ":"):
            self._cut = ""
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        kind = "more" if item.type == "plain" and item.value.endswith(("/", ":")) else item.type
        return f"{kind},{item.value.removeprefix(self._cut)}"


def complete(command: click.Command, instruction: str) -> int:
    """Answer a shell; the exit status. `bash_source` asks for what a shell is to read, `bash_complete` for words."""
    add_completion_class(BashComplete)
    shell, _, what = instruction.partition("_")
    found = get_completion_class(shell)
    if found is None:
        return 1
    asked = _Asked(command)
    answer = found(asked.command, {}, "uml", "_UML_COMPLETE")
    if what == "source":
        print(answer.source())
    else:
        try:
            print(answer.complete())
        except Exception:
            return 1  # a shell that waits for words can do nothing with an error
    return 0


class _Asked:
    """A command whose arguments know what they may become."""

    def __init__(self, command: click.Command) -> None:
        self.command = command
        if isinstance(command, click.Group):
            original = command.get_command

            def get_command(ctx: click.Context, cmd_name: str) -> click.Command | None:
                found = original(ctx, cmd_name)
                if found is not None:
                    _teach(found)
                return found

            vars(command)["get_command"] = get_command


def _teach(command: click.Command) -> None:
    for each in getattr(command, "commands", {}).values():
        _teach(each)
    for parameter in command.params:
        name = parameter.name or ""
        if isinstance(parameter, click.Argument) and name in MACHINES:
            parameter._custom_shell_complete = lambda ctx, param, word: list(machines(word))
        elif name in PLACES or name in ("root", "mounts", "ubds"):
            parameter._custom_shell_complete = lambda ctx, param, word: list(places(word))


def machines(word: str) -> Iterator[CompletionItem]:
    """The machines that run and begin so."""
    from runtime.machines import directory

    parent = directory.machines_directory()
    for path in sorted(parent.glob("*")) if parent.is_dir() else ():
        if path.name.startswith(word) and directory.runs(path):
            yield CompletionItem(path.name)


def places(word: str) -> Iterator[CompletionItem]:
    """Files, machines, and once there is a colon what is inside of them."""
    inside = _split(word)
    if inside is None:
        yield from _files(word)
        if "/" not in word:
            yield from (CompletionItem(f"{each.value}:") for each in machines(word))
        return
    source, rest = inside
    yield from _inside(source, rest)


def _split(word: str) -> tuple[str, str] | None:
    """The source that is there, and what comes after its colon."""
    from runtime.inspect.location import is_machine

    for end in (found.start() for found in reversed(list(re.finditer(":", word)))):
        if os.path.exists(word[:end]) or is_machine(word[:end]):
            return word[:end], word[end + 1 :]
    return None


def _files(word: str) -> Iterator[CompletionItem]:
    folder, _, start = word.rpartition("/")
    above = f"{folder}/" if "/" in word else ""
    try:
        entries = sorted(os.scandir(os.path.expanduser(above) or "."), key=lambda each: each.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
            yield CompletionItem(f"{above}{entry.name}{'/' if entry.is_dir() else ''}")


def _inside(source: str, rest: str) -> Iterator[CompletionItem]:
    """Partitions, and names in the directory that `rest` (`PARTITION:PATH` or `PATH`) begins to name."""
    import subprocess

    number, colon, path = rest.partition(":")
    has_part = bool(colon) and number.isdigit()
    prefix, path = (f"{source}:{number}:", path) if has_part else (f"{source}:", rest)
    if not has_part and "/" not in rest:
        yield from (CompletionItem(f"{source}:{each}:") for each in _partitions(source) if each.startswith(rest))
    folder, slash, start = path.rpartition("/")
    if not slash:
        yield CompletionItem(f"{prefix}/") if not path else CompletionItem(prefix + path)
        return
    keep = ["--keep", str(KEPT_SECONDS)] if os.path.isfile(source) else []
    command = own.uml("ls", "-a", "--json", *keep, f"{prefix}{folder}/")
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        return
    yield from (CompletionItem(f"{prefix}{folder}/{name}") for name in _names(done.stdout) if name.startswith(start))


def _names(listing: bytes) -> Iterator[str]:
    import json

    try:
        nodes = json.loads(listing)
    except ValueError:
        return
    for node in nodes:
        name = str(node["path"]).rstrip("/").rpartition("/")[2]
        if name.isprintable():
            yield f"{name}/" if node["type"] == "directory" else name


def _partitions(source: str) -> list[str]:
    import trio

    from runtime.appliance import disk
    from umlfs import sources
    from umlfs.block import BlockDevice
    from umlfs.errors import UmlError

    async def numbers() -> list[str]:
        async with disk.opened(sources.parse(source)) as device:
            found = await disk.parts(device) if isinstance(device, BlockDevice) else []
            return [str(each.number) for each in found if each.number is not None]

    try:
        return trio.run(numbers) if os.path.isfile(source) else []
    except (UmlError, OSError, BaseExceptionGroup):
        return []
