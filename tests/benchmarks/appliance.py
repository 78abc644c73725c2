"""Looking into an image, against a plain guest, against debugfs, which reads ext4 without a kernel, against tar on a
loop mount where root may make one, and against guestfish (libguestfs-tools), where that runs.

python -m tests.benchmarks.appliance [ROUNDS]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from runtime.appliance.client import end_kept
from tests import needs
from tests.benchmarks.ratio import measure, table
from umlfs.sources import parse

UML = [sys.executable, "-P", "-c", "from runtime.cli import main; main()"]
LARGE = 200 << 20
FILES = 10_000
KEEP_SECONDS = "60"
START_SECONDS = 120
"""Without KVM guestfish takes long to start."""


def make_image(directory: Path) -> Path:
    """An image with a large file and many small ones."""
    tree = directory / "tree"
    (tree / "many").mkdir(parents=True)
    with (tree / "large").open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(os.urandom(1 << 20))
    for number in range(FILES):
        place = tree / "many" / str(number // 100)
        place.mkdir(exist_ok=True)
        (place / str(number)).write_bytes(os.urandom(number % 4096))
    image = directory / "image"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-d", tree, image, "512M"], check=True, capture_output=True)
    shutil.rmtree(tree)
    return image


def uml(*words: str | Path) -> Callable[[], object]:
    return lambda: subprocess.run([*UML, *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def guestfish(image: Path, *words: str | Path) -> Callable[[], object]:
    command = ["guestfish", "--ro", "-a", str(image), "-m", "/dev/sda", *map(str, words)]
    environment = {**os.environ, "LIBGUESTFS_BACKEND": "direct"}  # root's default would be libvirt
    return lambda: subprocess.run(
        command, check=True, stdout=subprocess.DEVNULL, timeout=START_SECONDS, env=environment
    )


def has_guestfish(image: Path) -> bool:
    """Whether it is there and starts."""
    if shutil.which("guestfish") is None:
        return False
    try:
        guestfish(image, "ls", "/")()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return False
    return True


def debugfs(image: Path, request: str) -> Callable[[], object]:
    command = [needs.program("debugfs"), "-R", request, str(image)]
    return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def on_a_loop_mount(image: Path, script: str) -> Callable[[], object]:
    """A script in a mount namespace that has the image at /mnt."""
    mounted = f"mount -o loop,ro {image} /mnt && {script}"
    return lambda: subprocess.run(["unshare", "--mount", "sh", "-c", mounted], check=True, capture_output=True)


def has_loop_mounts(image: Path) -> bool:
    try:
        on_a_loop_mount(image, "true")()
    except subprocess.CalledProcessError:
        return False
    return True


def fresh(directory: Path) -> Path:
    """An empty directory to copy into."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory


def main(rounds: int = 5) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as text:
        directory = Path(text)
        image = make_image(directory)
        uml("ls", image)()
        peer = has_guestfish(image)
        print("guestfish: " + ("measured" if peer else "does not run here"))
        out = directory / "out"

        def copy_out() -> None:
            uml("cp", "-r", f"{image}:/many", fresh(out))()

        def peer_copy_out() -> None:
            guestfish(image, "copy-out", "/many", fresh(out))()

        runs: dict[str, dict[str, Callable[[], object]]] = {
            "start": {"uml run -- true": uml("run", "--", "true"), "uml ls": uml("ls", image)},
            f"a file of {LARGE >> 20} MiB": {"uml cat": uml("cat", f"{image}:/large")},
            f"{FILES} files": {"uml cp -r": copy_out},
        }
        large, many = f"a file of {LARGE >> 20} MiB", f"{FILES} files"
        runs[large]["debugfs cat"] = debugfs(image, "cat /large")
        runs[many]["debugfs rdump"] = lambda: debugfs(image, f"rdump /many {fresh(out)}")()
        archive = directory / "out.tar"
        runs["all of it as an archive"] = {
            "uml image convert": uml("image", "convert", "--force", image, archive),
        }
        if has_loop_mounts(image):
            runs[large]["cat, loop"] = on_a_loop_mount(image, "cat /mnt/large >/dev/null")
            runs["all of it as an archive"]["tar, loop"] = on_a_loop_mount(image, f"tar cf {archive} -C /mnt .")
        if peer:
            runs["start"]["guestfish ls"] = guestfish(image, "ls", "/")
            runs[f"a file of {LARGE >> 20} MiB"]["guestfish download"] = guestfish(
                image, "download", "/large", "/dev/null"
            )
            runs[f"{FILES} files"]["guestfish copy-out"] = peer_copy_out
        uml("ls", "--keep", KEEP_SECONDS, image)()
        runs["the next command, with --keep"] = {
            "python": lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
            "python, trio and click": lambda: subprocess.run([sys.executable, "-c", "import click, trio"], check=True),
            "uml ls": uml("ls", image),
            "uml ls --keep": uml("ls", "--keep", KEEP_SECONDS, image),
        }
        for name, contestants in reversed(runs.items()):
            print(f"\n{name}\n{table(measure(contestants, rounds), next(iter(contestants)))}", flush=True)
            end_kept(parse(str(image)))  # it was for the first


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
