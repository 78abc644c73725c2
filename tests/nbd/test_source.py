"""NBD sources: what their URIs mean, and what opening them says."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from tests.nbd.devices import MemoryDevice, serving
from umlfs import sources
from umlfs.block import BlockDevice
from umlfs.errors import UmlError, UsageError
from umlfs.host.listening import tcp_listeners
from umlfs.nbd.server import serve_nbd
from umlfs.sources import OpenOptions


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "a socket"
    async with serving(MemoryDevice(4096), path, name="my disk"):
        for text in (f"nbd+unix:///my%20disk?socket={path}", f"nbd+unix://?socket={path}"):
            device = await sources.parse(text.replace(" ", "%20")).open()
            assert isinstance(device, BlockDevice)
            assert device.size == 4096
            await device.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
async def test_tcp(host: str) -> None:
    with tcp_listeners(host.strip("[]"), 0) as listeners:
        port = listeners[0].getsockname()[1]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_nbd, MemoryDevice(4096), listeners, name="d/1"))
            device = await sources.parse(f"nbd://{host}:{port}/d%2F1").open(OpenOptions(read_only=True))
            assert isinstance(device, BlockDevice)
            assert device.read_only
            await device.close()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "text",
    [
        "nbd:",
        "nbd:host",
        "nbd:///name",
        "nbd://host:0x/name",
        "nbd://host:99999/",
        "nbd://user@host/",
        "nbd://host/?socket=/x",
        "nbd+unix:///name",
        "nbd+unix:///name?socket=",
        "nbd+unix://host/name?socket=/x",
        "nbd+unix:///name?socket=/x&tls=1",
        "nbd://host/%ff",
    ],
)
async def test_addresses_that_mean_nothing(text: str) -> None:
    with pytest.raises(UsageError, match="not an NBD address; write nbd"):
        await sources.parse(text).open()


@pytest.mark.parametrize("extra", [{"timeout": "soon"}, {"timeout": "-1"}, {"timeout": "inf"}, {"cache": "always"}])
async def test_options_that_mean_nothing(extra: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        await sources.parse("nbd://127.0.0.1/").open(OpenOptions(extra=extra))


async def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(UmlError, match="is the server running"):
        await sources.parse(f"nbd+unix:///?socket={tmp_path}/none").open()
    with tcp_listeners("127.0.0.1", 0) as listeners:
        port = listeners[0].getsockname()[1]
    with pytest.raises(UmlError, match="is the server running"):
        await sources.parse(f"nbd://127.0.0.1:{port}/").open()
