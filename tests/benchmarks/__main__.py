"""All benchmarks, one after the other: a page of what they print, and a picture of the ratios.

    python -m tests.benchmarks [--quick] [-o DIRECTORY] [NAME...]

Without names all of them, which takes an hour; with `--quick` the most important ones, fewer rounds of each, and no
more than ten minutes. They go to `benchmarks.md` and `benchmarks.png` in DIRECTORY (this one).
A benchmark that fails, because the machine lacks its peer, is told of on the page, and makes the exit status 1. The
picture needs matplotlib (`pip install '.[benchmarks]'`).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from runtime.kernels.kernel import find_kernel
from tests.benchmarks.ratios_in import Ratio, ratios

HERE: Final = Path(__file__).parent
TOOLS: Final = frozenset({"__init__", "__main__", "ratio", "ratios_in"})
SECONDS: Final = 3600.0
"""How long one may take."""
QUICK_SECONDS: Final = 570.0
"""How long all of those may take that are quick."""
QUICK: Final[Mapping[str, Sequence[str]]] = {
    "requests": ("1", "1000"),
    "guest_files": ("1",),
    "boot": ("3",),
    "serve_ops": (),
    "guest_blk": (),
    "nbd": (),
    "mount": (),
    "machines": ("1", "10"),
    "processor": ("1",),
    "humfs_ops": (),
    "hostfs_ops": (),
    "mconsole": ("1",),
    "guest_humfs": ("1",),
}
"""Their names, and the arguments of each."""
END_SECONDS: Final = 15.0
"""How long one may take to clean up."""
ROW_INCHES: Final = 0.22


def names() -> list[str]:
    """Of all benchmarks."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in TOOLS)


def end(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it started: by Ctrl-C, so that it removes its files; in the end by force."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def run(name: str, arguments: Sequence[str], seconds: float, environment: Mapping[str, str]) -> tuple[int, str]:
    """The exit status of one, and what it printed. After so many seconds it is killed, with all that it started."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *arguments]
    # A file, not a pipe: what outlives it may have that open.
    with tempfile.TemporaryFile() as output:
        with subprocess.Popen(
            command,
            cwd=HERE.parent.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        ) as process:
            late = ""
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                late = f"\nnot done within {seconds:.0f} s\n"
                end(process)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        output.seek(0)
        return process.returncode or int(bool(late)), output.read().decode(errors="replace") + late


def machine() -> str:
    """What it is measured on."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    host = os.uname()
    kernel = find_kernel().version
    return (
        f"Guests' Linux {kernel}, host's Linux {host.release}, {os.cpu_count()} processors, load {load} at the start."
    )


def page(results: Mapping[str, tuple[int, str]], about: str, picture: str) -> str:
    """The page, in Markdown."""
    lines = ["# Benchmarks", "", about, ""]
    if picture:
        lines += [f"![Ratios to the peer; below 1 is ours]({picture})", ""]
    for name, (status, output) in results.items():
        failed = f"Failed with exit status {status}.\n\n" if status else ""
        lines += [f"## {name}", "", f"{failed}```text", output.rstrip(), "```", ""]
    return "\n".join(lines)


def draw(found: Mapping[str, Sequence[Ratio]], path: Path) -> None:
    """The picture: a bar for each ratio, those below 1 to the left."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [(f"{name}: {ratio.name}", ratio.value) for name, each in found.items() for ratio in each][::-1]
    figure, axes = plt.subplots(figsize=(9, 1 + ROW_INCHES * len(rows)), layout="constrained")
    colours = ["tab:green" if value <= 1 else "tab:orange" for _, value in rows]
    axes.barh([label for label, _ in rows], [value - 1 for _, value in rows], left=1, color=colours)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time, as a multiple of the peer's")
    axes.tick_params(axis="y", labelsize=7)
    axes.margins(y=0.01)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def run_all(chosen: Sequence[str], *, quick: bool) -> dict[str, tuple[int, str]]:
    """The results of those, by name, in their order."""
    ends = time.monotonic() + QUICK_SECONDS
    results: dict[str, tuple[int, str]] = {}
    for name in chosen:
        begin = time.monotonic()
        if not quick:
            results[name] = run(name, (), SECONDS, {})
        elif begin < ends:
            results[name] = run(name, QUICK.get(name, ()), ends - begin, {"UMLFS_BENCHMARK_ROUNDS": "1"})
        else:
            results[name] = 1, "not run: the ten minutes were over\n"
        print(f"{name}: status {results[name][0]}, {time.monotonic() - begin:.0f} s", flush=True)
    return results


def main(words: Sequence[str]) -> int:
    """Run them; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("-o", "--output", type=Path, default=Path())
    parser.add_argument("--quick", action="store_true", help="fewer, with fewer rounds: ten minutes at most")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *names()])
    given = parser.parse_args(words)
    if importlib.util.find_spec("matplotlib") is None:
        print("no matplotlib for the picture: pip install '.[benchmarks]'", file=sys.stderr)
        return 2
    about = machine()
    results = run_all(given.names or (list(QUICK) if given.quick else names()), quick=given.quick)
    found = {name: each for name, (_, output) in results.items() if (each := ratios(output))}
    picture = "benchmarks.png" if found else ""
    if found:
        draw(found, given.output / picture)
    (given.output / "benchmarks.md").write_text(page(results, about, picture))
    return int(any(status for status, _ in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
