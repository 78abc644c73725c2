"""What a cluster has on the host while it is up: `~/.local/state/umlfs/clusters/NAME`.

cluster.json   where its file is, its machines, and its network: written before anything is started
lock           held (flock) by who brings it up or takes it down
log            what the kernels of its machines say
UMID.cow       what a machine has changed of its root
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from runtime.cluster.description import Cluster
from runtime.machines.description import SUFFIX
from runtime.network.lab import check_name
from umlfs.errors import UmlError
from umlfs.host.newfile import new_file

RECORD: Final = "cluster.json"
LOCK: Final = "lock"
LOG: Final = "log"


@dataclass(frozen=True, slots=True)
class State:
    """A cluster that is up, or was left so."""

    name: str
    file: str
    umids: tuple[str, ...]
    sockets: tuple[str, ...] = ()
    """The directories where its machines have their sockets, as far as they are up."""

    @property
    def directory(self) -> Path:
        return directory_of(self.name)

    @property
    def log(self) -> Path:
        return self.directory / LOG

    @property
    def network(self) -> str:
        """The name of its network."""
        return self.name


def home() -> Path:
    """Where the clusters of this user are."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return Path(base if base.startswith("/") else os.path.expanduser("~/.local/state")) / "umlfs" / "clusters"


def directory_of(name: str) -> Path:
    return home() / check_name(name)


def name_of(word: str) -> str:
    """The cluster's name, from that or from the path of its file. UsageError."""
    return check_name(Path(word).stem if word.endswith(SUFFIX) else word)


def read(name: str) -> State | None:
    """The cluster of that name; None if there is none. UmlError if its record cannot be read."""
    path = directory_of(name) / RECORD
    try:
        record = json.loads(path.read_bytes())
        return State(name, str(record["file"]), tuple(map(str, record["umids"])), tuple(map(str, record["sockets"])))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UmlError(f"{path}: cannot be read: {error}", f"'uml cluster down {name}' removes what is left") from None


def found(name: str) -> State:
    """The cluster of that name. UmlError if there is none."""
    state = read(name)
    if state is None:
        raise UmlError(f"{name}: no such cluster is up", f"bring it up: uml cluster up {name}{SUFFIX}")
    return state


def record(cluster: Cluster, sockets: Iterable[str] = ()) -> State:
    """Note that the cluster is up, or about to be; `sockets` of a machine that was there before stay. OSError."""
    with contextlib.suppress(UmlError):
        known = read(cluster.name)
        sockets = {*sockets, *(known.sockets if known else ())}
    umids = tuple(node.umid for node in cluster.nodes)
    state = State(
        cluster.name, str(cluster.file), umids, tuple(sorted(path for path in sockets if Path(path).is_dir()))
    )
    with new_file(str(state.directory / RECORD), 0o600, replace=True) as fd:
        os.write(fd, json.dumps({"version": 1, **asdict(state)}, indent=1).encode())
    return state


def forget(name: str) -> None:
    """Remove all that the cluster has on the host."""
    shutil.rmtree(directory_of(name), ignore_errors=True)


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Nobody else brings the cluster up or takes it down meanwhile. UmlError if somebody does."""
    path = directory_of(name)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(path / LOCK, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UmlError(
                f"{name}: another 'uml cluster' is bringing it up or taking it down", "wait for it"
            ) from None
        try:
            yield
        finally:
            if not (path / RECORD).exists():
                forget(name)
