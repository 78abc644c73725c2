"""The task list of docs/captive.md: what is written in the guest is on its page."""

from __future__ import annotations

import re
import smtplib
import socket
import sys
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import trio

ROOT = Path(__file__).parents[2]
DELIVER = """\
#!/bin/sh
while read -r line && [ "$line" ]; do
    case $line in Subject:*) name=${line#Subject: } ;; esac
done
cat >"/tasks/$name"
"""
SMTP = """\
import subprocess, sys, time
from aiosmtpd.controller import Controller

class Deliver:
    async def handle_DATA(self, server, session, envelope):
        subprocess.run(["sh", "/tmp/deliver"], input=envelope.content.replace(b"\\r", b""), check=True)
        return "250 delivered"

Controller(Deliver(), hostname="0.0.0.0", port=2525).start()
print("listens", flush=True)
time.sleep(1000)
"""


def example() -> dict[str, Any]:
    """The names that the page's code defines."""
    text = (ROOT / "docs/captive.md").read_text()
    (code,) = (each for each in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "def page" in each)
    names: dict[str, Any] = {"__name__": "tasks"}
    exec(code, names)
    return names


async def page(address: str) -> str:
    def get() -> str:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return str(answer.read().decode())

    return await trio.to_thread.run_sync(get)


def send(port: int) -> None:
    mail = EmailMessage()
    mail["Subject"] = "call Bob"
    mail["From"], mail["To"] = "anna@example.org", "tasks@example.org"
    mail.set_content("about the roof\n")
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.send_message(mail)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.guest
async def test_what_is_written_is_on_the_page() -> None:
    tasks = {"milk": "two litres"}
    port = free_port()
    async with trio.open_nursery() as nursery:
        guest, address = await nursery.start(example()["serve"], tasks, "127.0.0.1:0", [f"127.0.0.1:{port}:2525"])
        assert "<li><b>milk</b> two litres</li>" in await page(address)
        await guest.as_user("nobody").run(["sh", "-c", "echo '<rye>' >/tasks/bread; rm /tasks/milk"], check=True)
        assert "<ul><li><b>bread</b> &lt;rye&gt;</li></ul>" in await page(address)
        tasks["eggs"] = "six"
        assert (await guest.run(["cat", "/tasks/eggs"])).stdout == b"six\n"
        # Four lines of shell make a task of a mail, which comes over the network.
        await guest.files.write("/tmp/deliver", DELIVER.encode())
        environment = {"PYTHONPATH": ":".join(sys.path)}
        async with guest.start([sys.executable, "-c", SMTP], environment=environment) as server:
            assert await server.stdout.receive_some() == b"listens\n"
            await trio.to_thread.run_sync(send, port)
        assert "<li><b>call Bob</b> about the roof</li>" in await page(address)
        nursery.cancel_scope.cancel()
