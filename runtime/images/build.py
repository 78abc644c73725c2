"""A Debian root filesystem out of packages, by mmdebstrap, into an image of any format."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, cast

import trio

from runtime.host.needs import find_program
from runtime.host.scratch import scratch_directory
from runtime.images import ext4
from runtime.images.convert import Write, Writing, in_thread, write_image
from runtime.images.epoch import NAME as EPOCH
from runtime.images.formats import Format, Image
from runtime.images.output import require_free
from runtime.images.recipe import Recipe, commands, files
from runtime.images.streams import drain
from umlfs.errors import UmlError, sole
from umlfs.host.programs import Program, run_program

SIZE: Final = 2 << 30
_LINES: Final = 400
_SHOWN: Final = 15
_OTHER_WAY: Final = "have root change it, or `apt install fakechroot fakeroot`"
_SETTINGS: Final = {
    "/proc/sys/kernel/unprivileged_userns_clone": "0",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1",
    "/proc/sys/user/max_user_namespaces": "0",
}
"""What keeps ordinary users from having user namespaces, and the value that does it."""

Say = Callable[[str], None]


async def build(
    target: Image,
    recipe: Recipe,
    writing: Writing | None = None,
    say: Say = lambda line: None,
    *,
    lies_on: Format | None = None,
) -> None:
    """Make `target` a Debian as `recipe` has it; `say` is told what mmdebstrap does. Where it is not to stay there,
    `lies_on` is the format that its table of filesystems is for.

    UsageError for a target that is there; UmlError if this user cannot have it made, or it fails, with nothing left.
    """
    writing = writing or Writing(epoch=recipe.epoch)
    require_free(target, writing.force)
    require_mode()
    settings = ext4.Settings(writing.size or SIZE, epoch=recipe.epoch)

    async def fill(write: Write) -> None:
        try:
            async with _packages(recipe, lies_on or target.format, say) as stream:
                await in_thread(partial(write, stream))
        except BaseExceptionGroup as group:
            raise sole(group) from None  # so that an OSError in it gets a name

    try:
        await write_image(target, settings, writing, fill)
    except BaseExceptionGroup as group:
        raise sole(group) from None


@contextlib.asynccontextmanager
async def _packages(recipe: Recipe, format_: Format, say: Say) -> AsyncIterator[BinaryIO]:
    """What mmdebstrap writes, a tar archive. Its failure is an UmlError, whatever the archive's reader makes of it."""
    content = await trio.to_thread.run_sync(files, recipe, format_)
    lines: deque[str] = deque(maxlen=_LINES)
    with _scratch() as scratch:
        with _additions(content) as additions:
            process = _start(recipe, additions, scratch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, cast(BinaryIO, process.stderr), lines, say)
            async with _ending(process, recipe, lines) as stream:
                yield stream


@contextlib.asynccontextmanager
async def _ending(process: Program, recipe: Recipe, lines: Iterable[str]) -> AsyncIterator[BinaryIO]:
    """What the program writes. Afterwards it has ended: UmlError if it failed, whatever else went wrong."""
    stream = cast(BinaryIO, process.stdout)
    try:
        yield stream
        await trio.to_thread.run_sync(drain, stream)
    except (UmlError, BaseExceptionGroup) as error:
        if not isinstance(sole(error), UmlError) or stream.read(1) or await _status(process) == 0:
            raise
        raise _explained(recipe, lines) from error
    finally:
        stream.close()
        process.terminate()
        status = await _status(process)
    if status:
        raise _explained(recipe, lines)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """A directory for its temporary files, which it leaves when it fails. Its chroot's users go through it."""
    with scratch_directory(Path(tempfile.gettempdir())) as path:
        path.chmod(0o711)
        yield path


async def _status(process: Program) -> int:
    """Wait for the end of mmdebstrap, which cleans up first: also when the caller is cancelled."""
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(process.wait)
    return process.returncode


@contextlib.contextmanager
def _additions(content: bytes) -> Iterator[int]:
    """A descriptor of the archive with our files."""
    with open(os.memfd_create("files", os.MFD_CLOEXEC), "w+b", buffering=0) as file:
        file.write(content)
        yield file.fileno()


def _start(recipe: Recipe, additions: int, scratch: Path) -> Program:
    command = [find_program("mmdebstrap"), "--variant=minbase", "--format=tar"]
    command.append(f"--include={','.join(recipe.packages)}")
    hooks = [*commands(recipe), f"tar-in /proc/self/fd/{additions} /"]
    command += [f"--customize-hook={hook}" for hook in hooks]
    command += [recipe.suite, "-", *(recipe.mirrors or host_sources(recipe.suite))]
    environment = dict(os.environ)
    environment["PATH"] = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    environment |= {"LC_ALL": "C.UTF-8", "TMPDIR": str(scratch)}
    environment.pop(EPOCH, None)
    if recipe.epoch is not None:
        environment[EPOCH] = str(recipe.epoch)
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return Program(command, env=environment, pass_fds=[additions], **streams)


async def _listen(words: BinaryIO, lines: deque[str], say: Say) -> None:
    """Keep what mmdebstrap says, and pass on what it is about."""

    def listen() -> None:
        with words:
            for data in words:
                line = data.decode(errors="replace").rstrip()
                lines.append(line)
                if line.startswith("I: "):
                    say(line[3:])

    await trio.to_thread.run_sync(listen)


def _explained(recipe: Recipe, lines: Iterable[str]) -> UmlError:
    complaints = [line for line in lines if not line.startswith("I: ")][-_SHOWN:]
    return UmlError(
        f"mmdebstrap could not make {recipe.suite}", "its last words are above", details="\n".join(complaints)
    )


# Where packages come from ---------------------------------------------------------------------


def host_sources(suite: str) -> tuple[str, ...]:
    """The lines by which this host's own apt has the suite, its updates and its security fixes; none if it has not."""
    apt = shutil.which("apt-get")
    if apt is None:
        return ()
    form = "$(TARGET_OF)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(SIGNED_BY)"
    done = run_program([apt, "indextargets", "--format", form], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return tuple(_source_lines(suite, done.stdout.decode(errors="replace").splitlines()))


def _source_lines(suite: str, targets: list[str]) -> Iterator[str]:
    releases = (suite, f"{suite}-updates", f"{suite}-security", f"{suite}/updates")
    found: dict[tuple[str, str, str], list[str]] = {}
    for target in targets:
        kind, uri, release, component, signed_by = target.split("\t")
        if kind == "deb" and release in releases:
            components = found.setdefault((uri, release, signed_by), [])
            if component not in components:
                components.append(component)
    for (uri, release, signed_by), components in found.items():
        key = f"[signed-by={signed_by}] " if signed_by.startswith("/") else ""
        yield f"deb {key}{uri} {release} {' '.join(components)}"


# Who may do it --------------------------------------------------------------------------------


def require_mode() -> None:
    """UmlError, saying what is missing, if mmdebstrap has no way to make files of others for this user."""
    find_program("mmdebstrap")
    if os.geteuid() == 0 or (shutil.which("fakechroot") and shutil.which("fakeroot")):
        return
    for path, value in _SETTINGS.items():
        with contextlib.suppress(OSError):
            if Path(path).read_text().strip() == value:
                name = path.removeprefix("/proc/sys/").replace("/", ".")
                raise UmlError(f"{name}={value} keeps ordinary users from user namespaces", _OTHER_WAY)
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        raise UmlError("the programs newuidmap and newgidmap are not there", "install them with `apt install uidmap`")
    user = getpass.getuser()
    for ids in (Path("/etc/subuid"), Path("/etc/subgid")):
        if not _has_range(ids, user):
            raise UmlError(
                f"{ids} has no ids for {user}",
                f"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
            )


def _has_range(path: Path, user: str) -> bool:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":")[0] in (user, str(os.geteuid())) for line in lines)
