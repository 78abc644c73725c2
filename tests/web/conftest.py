"""A page that an ordinary user serves, and one browser for all who look at it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, ViewportSize, expect, sync_playwright

from tests import needs
from tests.machines.conftest import ordinary
from tests.machines.household import Household, household
from tests.ordinary import OrdinaryUser

__all__ = ["ordinary"]
CHROMIUM = "/usr/bin/chromium"
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
    "--no-sandbox",
)
"""The browser talks to us alone."""
MIB = 1 << 20
NARROW = {"width": 360, "height": 640}
WIDE: ViewportSize = {"width": 1000, "height": 700}


@dataclass
class Site:
    """A server of ours, and what it serves."""

    somebody: Household
    address: str
    """With the token."""
    images: Path

    @property
    def origin(self) -> str:
        parts = urlsplit(self.address)
        return f"{parts.scheme}://{parts.netloc}"


def make_image(folder: Path) -> Path:
    """A system of busybox alone, in an image."""
    tree = folder / "tree"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root", "mnt", "run"):
        (tree / name).mkdir(parents=True)
    busybox = needs.path("/bin/busybox")
    shutil.copy(busybox, tree / "bin" / "busybox")
    for name in ("sh", "cat", "echo", "hostname", "ls", "sync"):
        (tree / "bin" / name).symlink_to("busybox")
    (tree / "etc" / "motd").write_text("welcome\n")
    image = folder / "small.img"
    image.touch()
    os.truncate(image, 16 * MIB)
    command: list[str | Path] = [needs.program("mkfs.ext4"), "-qF", "-d", tree, "-E", "root_owner=0:0", image]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return image


@pytest.fixture(scope="session")
def site(user: OrdinaryUser) -> Iterator[Site]:
    """The page, with a machine called `web`, and a class called `lab` of two."""
    with household(user if os.geteuid() == 0 else None) as somebody:
        images = somebody.home / "images"
        images.mkdir()
        make_image(images)
        for path in (images, images / "small.img"):
            os.chown(path, user.uid, user.gid)
        somebody.ok("cow", "create", "images/small.cow", "images/small.img")
        somebody.ok("cow", "create", "images/work.cow", "images/small.img")
        (somebody.home / "list.csv").write_text("name,mail\nanna,a@example.org\nbert,b@example.org\n")
        somebody.ok("class", "create", "lab", "--image", "images/small.img", "--students", "list.csv", "--mem", "64M")
        somebody.ok("boot", "-d", "--name", "web", "--mem", "64M", "--net", "none")
        with served(somebody, "--images", "images") as address:
            try:
                yield Site(somebody, address, images)
            finally:
                somebody.uml("class", "halt", "lab")
                for each in somebody.ps():
                    somebody.ok("halt", "--now", each["umid"])


class served:
    """`uml web` with these options: its address."""

    def __init__(self, somebody: Household, *options: str | Path) -> None:
        self._command = somebody.command("web", "--bind", "127.0.0.1:0", *options)

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def __exit__(self, *raised: object) -> None:
        self._process.terminate()
        _, complaints = self._process.communicate(timeout=30)
        assert self._process.returncode == 128 + 15, complaints
        assert complaints == b""


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """While it runs, so does an event loop of asyncio, in which other tests' own would not start."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """Debian's Chromium."""
    needs.path(CHROMIUM)
    running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET), chromium_sandbox=False)
    yield running
    running.close()


@dataclass
class Person:
    """Somebody at a browser. What the browser complains of is kept."""

    page: Page
    complaints: list[str]

    def shot(self, name: str) -> None:
        """A picture for the documentation, where one is wanted."""
        folder = os.environ.get("UML_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=Path(folder) / f"{name}.png")


@pytest.fixture
def person(browser: Browser, site: Site) -> Iterator[Person]:
    """Somebody who has opened the address, and in the end found nothing amiss."""
    with visiting(browser, site.address) as somebody:
        yield somebody


class visiting:
    """Somebody who opens an address."""

    def __init__(self, browser: Browser, address: str) -> None:
        self._context = browser.new_context(viewport=WIDE, permissions=["clipboard-read", "clipboard-write"])
        self._address = address

    def __enter__(self) -> Person:
        page = self._context.new_page()
        page.set_default_timeout(20_000)
        somebody = Person(page, [])

        def hear(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                somebody.complaints.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: somebody.complaints.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(self._address)
        page.wait_for_url("**/")
        self._somebody = somebody
        return somebody

    def __exit__(self, kind: object, *raised: object) -> None:
        self._context.close()
        if kind is None:
            assert self._somebody.complaints == []


expect.set_options(timeout=20_000)
