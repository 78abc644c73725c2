"""Servers that the plugins are tested against, each started once."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs


def _postgres_program(name: str) -> str:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if not found:
        pytest.fail(f"needs PostgreSQL's {name}: {needs.MEND}")
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
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an S3 server in this process; its keys are any."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
