"""Servers on loopback that `fs:` is tested against: a web server that knows ranges, and an SFTP server."""

from __future__ import annotations

import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import paramiko


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def _answer(self, body: bool) -> None:
        if self.server.refusing:  # type: ignore[attr-defined]
            self.close_connection = True
            return
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            (super().do_GET if body else super().do_HEAD)()
            return
        size = path.stat().st_size
        start, end = 0, size - 1
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last), end) if last else end
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - start + 1))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.end_headers()
        if body:
            with open(path, "rb") as file:
                self._send(file.fileno(), start, end - start + 1)

    def _send(self, file: int, start: int, count: int) -> None:
        self.wfile.flush()
        while count:
            sent = os.sendfile(self.connection.fileno(), file, start, count)
            if not sent:
                return
            start, count = start + sent, count - sent


class WebServer(ThreadingHTTPServer):
    """Serves a directory; `refusing` breaks every connection."""

    daemon_threads = True
    refusing = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away."""


@contextmanager
def web_server(directory: Path) -> Iterator[tuple[WebServer, str]]:
    def handler(*args: Any) -> _Handler:
        return _Handler(*args, directory=str(directory))

    with WebServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


# SFTP -----------------------------------------------------------------------------------------


class _Login(paramiko.ServerInterface):  # type: ignore[misc]
    def check_auth_password(self, username: str, password: str) -> int:
        return int(paramiko.AUTH_SUCCESSFUL if password == "secret" else paramiko.AUTH_FAILED)

    def check_channel_request(self, kind: str, channel: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)


class _Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    """A directory of the host's."""

    root = Path("/")

    def _path(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _told(self, call: Any) -> Any:
        try:
            return call()
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    def _done(self, call: Any) -> Any:
        return self._told(lambda: call() or paramiko.SFTP_OK)

    def list_folder(self, path: str) -> Any:
        def entries() -> list[Any]:
            return [
                paramiko.SFTPAttributes.from_stat(one.stat(follow_symlinks=False), one.name)
                for one in os.scandir(self._path(path))
            ]

        return self._told(entries)

    def stat(self, path: str) -> Any:
        return self._told(lambda: paramiko.SFTPAttributes.from_stat(self._path(path).stat()))

    def lstat(self, path: str) -> Any:
        return self._told(lambda: paramiko.SFTPAttributes.from_stat(self._path(path).lstat()))

    def readlink(self, path: str) -> Any:
        return self._told(lambda: os.readlink(self._path(path)))

    def remove(self, path: str) -> Any:
        return self._done(self._path(path).unlink)

    def mkdir(self, path: str, attr: Any) -> Any:
        return self._done(self._path(path).mkdir)

    def rmdir(self, path: str) -> Any:
        return self._done(self._path(path).rmdir)

    def posix_rename(self, oldpath: str, newpath: str) -> Any:
        return self._done(lambda: os.replace(self._path(oldpath), self._path(newpath)))

    def open(self, path: str, flags: int, attr: Any) -> Any:
        def opened() -> Any:
            mode = "r+b" if flags & os.O_ACCMODE else "rb"
            fd = os.open(self._path(path), flags, 0o644)
            handle = paramiko.SFTPHandle(flags)
            handle.readfile = handle.writefile = os.fdopen(fd, mode)
            return handle

        return self._told(opened)


class _SftpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def sftp_server(directory: Path) -> Iterator[str]:
    """The URL of `directory`, for the user `me` with the password `secret`."""
    key = paramiko.ECDSAKey.generate()
    files = type("Files", (_Files,), {"root": directory})
    transports: list[Any] = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connection: socket.socket = self.request
            transport = paramiko.Transport(connection)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, files)
            transports.append(transport)
            transport.start_server(server=_Login())
            transport.join()

    with _SftpServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"sftp://127.0.0.1:{server.server_address[1]}"
        finally:
            for transport in transports:
                transport.close()
            server.shutdown()
            thread.join()
