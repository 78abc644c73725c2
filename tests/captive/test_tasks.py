"""The task list of docs/captive.md: what is written in the guest is on its page."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trio

ROOT = Path(__file__).parents[2]


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


@pytest.mark.guest
async def test_what_is_written_is_on_the_page() -> None:
    tasks = {"milk": "two litres"}
    async with trio.open_nursery() as nursery:
        guest, address = await nursery.start(example()["serve"], tasks, "127.0.0.1:0")
        assert "<li><b>milk</b> two litres</li>" in await page(address)
        await guest.as_user("nobody").run(["sh", "-c", "echo '<rye>' >/tasks/bread; rm /tasks/milk"], check=True)
        assert "<ul><li><b>bread</b> &lt;rye&gt;</li></ul>" in await page(address)
        tasks["eggs"] = "six"
        assert (await guest.run(["cat", "/tasks/eggs"])).stdout == b"six\n"
        # Four lines of shell make a task of a mail.
        mail = b"From: anna@example.org\nSubject: call Bob\n\nabout the roof\n"
        script = 'while read -r line && [ "$line" ]; do case $line in Subject:*) name=${line#Subject: };; esac; done\n'
        await guest.run(["sh", "-c", f'{script}cat >"/tasks/$name"'], input=mail, check=True)
        assert "<li><b>call Bob</b> about the roof</li>" in await page(address)
        nursery.cancel_scope.cancel()
