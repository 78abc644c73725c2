"""The management console: `python -m tests.benchmarks.mconsole [ROUNDS]`.

A real kernel is asked for its version, 500 times in a row and once. A request of ours may take at most 1.2 times as
long as one of Debian's uml_mconsole; a program that is started for one request also pays for the start of Python.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import trio

from runtime.mconsole.blocking import ask
from runtime.mconsole.client import Client
from runtime.mconsole.server import serving
from tests.benchmarks.ratio import measure, table
from tests.mconsole.guest import booted

COUNT = 500
DEBIANS = ["/usr/bin/uml_mconsole"]
OURS = [sys.executable, "-P", "-c", "from runtime.cli.historical.mconsole import main; main()"]


def typed(command: list[str], path: Path) -> None:
    """Requests typed at a program's prompt."""
    subprocess.run([*command, str(path)], input=b"version\n" * COUNT, capture_output=True, check=True)


def once(command: list[str], path: Path) -> None:
    subprocess.run([*command, str(path), "version"], capture_output=True, check=True)


def blocking(path: Path) -> None:
    for _ in range(COUNT):
        ask(path, "version")


async def with_trio(path: Path) -> None:
    client = Client(path)
    for _ in range(COUNT):
        await client.request("version")


async def through_our_socket(path: Path, kernel: Path) -> None:
    async with serving(path, kernel, {}):
        await trio.to_thread.run_sync(typed, DEBIANS, path)


def main(rounds: int) -> None:
    """Print the tables."""
    with booted() as guest:
        kernel = guest.console
        public = guest.keeper.directory / "public"
        many = {
            "Debian's prompt": lambda: typed(DEBIANS, kernel),
            "our prompt": lambda: typed(OURS, kernel),
            "ask()": lambda: blocking(kernel),
            "Client.request()": lambda: trio.run(with_trio, kernel),
            "Debian's, our socket": lambda: trio.run(through_our_socket, public, kernel),
        }
        print(f"{COUNT} requests:\n{table(measure(many, rounds), next(iter(many)))}")
        single = {"Debian's program": lambda: once(DEBIANS, kernel), "our program": lambda: once(OURS, kernel)}
        print(f"one request:\n{table(measure(single, rounds), next(iter(single)))}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
