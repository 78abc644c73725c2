"""Servers that the plugins are tested against, each started once."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs


def _postgres_program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found:
        needs.lack(f"PostgreSQL's {name}: {needs.MEND}")
    return str(found[-1])


def _as_its_user(directory: Path) -> tuple[str, ...]:
    """PostgreSQL runs as anyone but root."""
    if os.geteuid():
        return ()
    account = pwd.getpwnam("nobody")
    os.chown(directory, account.pw_uid, account.pw_gid)
    return needs.as_nobody()


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a server of ours, on a socket in a directory of its own; its database `postgres` is empty."""
    directory = Path(tempfile.mkdtemp(prefix="umlfs-pg-"))
    as_user = _as_its_user(directory)
    data = directory / "data"
    words = ["-D", str(data), "--no-sync", "-A", "trust", "-U", "me", "--locale=C", "-E", "UTF8"]
    try:
        subprocess.run([*as_user, _postgres_program("initdb"), *words], check=True, capture_output=True, cwd="/")
        settings = [f"unix_socket_directories={directory}", "listen_addresses=", "fsync=off", "max_connections=40"]
        options = [word for setting in settings for word in ("-c", setting)]
        log = open(directory / "log", "wb")  # noqa: SIM115 - as long as the server
        server = subprocess.Popen(
            [*as_user, _postgres_program("postgres"), "-D", str(data), *options], stdout=log, stderr=log, cwd="/"
        )
        try:
            _wait_for_postgres(directory)
            yield f"postgresql://me@/postgres?host={directory}"
        finally:
            server.send_signal(signal.SIGINT)  # whoever is connected is thrown out
            server.wait(20)
            log.close()
    finally:
        shutil.rmtree(directory)


def _wait_for_postgres(directory: Path) -> None:
    subprocess.run(
        ["sh", "-c", f"until {_postgres_program('pg_isready')} -q -h {directory}; do sleep 0.05; done"],
        check=True,
        timeout=30,
    )


@pytest.fixture(scope="session")
def fsspec_loop() -> None:
    """The thread in which fsspec's libraries wait, which stays."""
    import fsspec.asyn

    fsspec.asyn.get_loop()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of an S3 server; its keys are any."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    try:
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert server.poll() is None
            assert time.monotonic() < end, "the S3 server does not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)
