"""A process with a standby beside it: `python -m tests.standby.host SOCKET ORPHAN`. Ends with its input.

What the standby does for `ls WORD…` is said by the first word.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path

from runtime.standby.server import standby
from runtime.standby.worker import Commands


def suits(arguments: list[str]) -> bool:
    return arguments[1:2] != ["unsuitable"]


def invoke(arguments: list[str]) -> int:
    what, *rest = arguments[1:]
    if what == "tell":
        print(json.dumps(_report()))
    elif what == "echo":
        sys.stdout.write(sys.stdin.read())
    elif what == "complain":
        print("día", *rest, file=sys.stderr)
        return 3
    elif what == "exit":
        raise SystemExit(143)
    elif what == "fail":
        raise ValueError("odd")
    elif what == "die":
        os.kill(os.getpid(), signal.SIGTERM)
    elif what == "wait":
        _wait()
    return 0


def _report() -> dict[str, object]:
    return {
        "directory": os.getcwd(),
        "umask": os.umask(0),
        "variables": {name: os.environ.get(name) for name in ("COLOUR", "HOME")},
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "hangup": signal.getsignal(signal.SIGHUP) == signal.SIG_IGN,
        "descriptors": sorted(map(int, os.listdir("/proc/self/fd")))[:3],
    }


def _wait() -> None:
    try:
        print(os.getpid(), flush=True)
        while True:
            signal.pause()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def main(path: str, orphan: str) -> None:
    with standby(Path(path), Commands(suits, invoke, ("json",)), [Path(orphan)]):
        print("up", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
