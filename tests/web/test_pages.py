"""Every page in a browser, by a person's steps."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.web.conftest import NARROW, Person, Site, visiting

PAGES = ("machines", "images", "image/small.cow", "browse/small.img//", "classes", "events", "mconsole/web", "log/web")


def test_machines_show_what_they_are_and_do(person: Person) -> None:
    page = person.page
    card = page.get_by_role("region", name="web")
    expect(card).to_contain_text("running")
    expect(card.locator("figcaption").first).to_contain_text("requests/s")
    card.get_by_role("button", name="stop web").click()
    expect(card.locator(".state")).to_have_text("stopped")
    card.get_by_role("button", name="go web").click()
    expect(card.locator(".state")).to_have_text("running")
    person.shot("machines")


def test_a_machine_is_started_and_ended_by_keyboard_alone(person: Person) -> None:
    page = person.page
    page.locator("input[name=umid]").focus()
    page.keyboard.type("fresh")
    page.locator("select[name=root]").focus()
    page.keyboard.type("small.cow")
    page.locator("input[name=memory]").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("64M")
    page.keyboard.press("Enter")
    card = page.get_by_role("region", name="fresh")
    expect(card).to_contain_text("running")
    halt = card.get_by_role("button", name="halt fresh")
    halt.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_have_text("fresh: halt done")
    expect(card).to_have_count(0)


def test_a_shell_is_typed_into_copied_from_and_left(person: Person) -> None:
    page = person.page
    page.get_by_role("link", name="Shell").click()
    rows = page.locator(".xterm-rows")
    expect(rows).to_contain_text("#")
    page.keyboard.type("echo $((6*7)) cells; stty size\n")
    expect(rows).to_contain_text("42 cells")
    expect(rows).to_contain_text(re.compile(r"\d\d \d\d\d?"))
    person.shot("shell")
    page.keyboard.press("Control+Shift+Escape")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Machines")).to_be_visible()


def test_of_two_viewers_of_a_console_one_types(person: Person, browser: Browser, site: Site) -> None:
    person.page.goto(f"{site.origin}/#/console/web")
    expect(person.page.locator(".bar [role=status]")).to_have_text("con1")
    with visiting(browser, site.address) as second:
        second.page.goto(f"{site.origin}/#/console/web")
        expect(second.page.locator(".bar [role=status]")).to_have_text("con1: you watch")
        person.page.goto(f"{site.origin}/#/machines")
        expect(second.page.locator(".bar [role=status]")).to_contain_text("now you do")


def test_the_management_console_answers(person: Person, site: Site) -> None:
    person.page.goto(f"{site.origin}/#/mconsole/web")
    expect(person.page.get_by_label("Request")).to_be_focused()
    person.page.keyboard.type("version")
    person.page.keyboard.press("Enter")
    expect(person.page.locator("pre")).to_contain_text("Linux")


def test_files_are_viewed_downloaded_uploaded_and_compared(person: Person, site: Site, tmp_path: Path) -> None:
    page = person.page
    page.goto(f"{site.origin}/#/images")
    page.get_by_role("link", name="work.cow").click()
    expect(page.locator("canvas")).to_have_count(1)
    page.get_by_role("link", name="whole").click()
    page.get_by_role("link", name="etc/").click()
    page.get_by_role("button", name="motd", exact=True).click()
    expect(page.locator("pre")).to_have_text("welcome\n")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download motd").click()
    assert Path(download.value.path()).read_text() == "welcome\n"
    (tmp_path / "hello").write_bytes(b"hello" * 1000)
    page.locator("input[type=file]").set_input_files(tmp_path / "hello")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("button", name="hello", exact=True)).to_be_visible()
    page.goto(f"{site.origin}/#/image/work.cow")
    expect(page.locator("figcaption")).to_contain_text("sectors changed")
    person.shot("image")
    page.goto(f"{site.origin}/#/images")
    page.locator("select[name=one]").select_option("small.img")
    page.locator("select[name=other]").select_option("work.cow")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("li.added")).to_have_text("+ /etc/hello")


def test_files_of_a_running_machine(person: Person, site: Site) -> None:
    person.page.goto(f"{site.origin}/#/files/web/")
    expect(person.page.get_by_role("link", name="proc/")).to_be_visible()


def test_events_come_as_they_happen(person: Person, site: Site) -> None:
    person.page.goto(f"{site.origin}/#/events")
    site.somebody.ok("exec", "web", "--", "sh", "-c", "echo hello from the guest >/proc/mconsole")
    expect(person.page.locator("ol")).to_contain_text("hello from the guest")


def test_a_class_and_its_students(person: Person, browser: Browser, site: Site) -> None:
    page = person.page
    page.goto(f"{site.origin}/#/classes")
    page.get_by_role("button", name="Start all").click()
    expect(page.get_by_role("link", name="Console")).to_have_count(2)
    page.get_by_label("Command for all").fill("echo $((6*7)) >/root/answer; cat /root/answer")
    page.get_by_role("button", name="Run in all").click()
    expect(page.locator("pre")).to_have_text(["42\n", "42\n"])
    person.shot("class")
    links = dict(
        line.split("\t") for line in site.somebody.ok("class", "links", "lab", "--at", site.origin).splitlines()
    )
    with visiting(browser, links["anna"]) as anna:
        anna.page.get_by_role("button", name="Shell").click()
        expect(anna.page.locator(".xterm-rows")).to_contain_text("#")
        anna.page.keyboard.type("cat /root/answer\n")
        expect(anna.page.locator(".xterm-rows")).to_contain_text("42")
        answers = [
            anna.page.evaluate(f"fetch('{path}').then((answer) => answer.status)")
            for path in ("/api/images", "/api/files?machine=lab-bert", "/api/classes", "/api/machines/web/log")
        ]
        assert answers == [403] * 4
        assert anna.page.evaluate("fetch('/api/machines').then((a) => a.json())")[0]["umid"] == "lab-anna"
        refused = [_closed(anna, path) for path in ("/ws/exec/lab-bert", "/ws/console/web", "/ws/events")]
        assert refused == [1006] * 3
        anna.complaints.clear()  # of the refusals
    page.get_by_role("button", name="Reset anna").click()
    expect(page.get_by_role("status").first).to_have_text("lab: reset done")
    assert site.somebody.ok("exec", "lab-anna", "--", "ls", "/root") == ""
    assert site.somebody.ok("exec", "lab-bert", "--", "cat", "/root/answer") == "42\n"


def _closed(somebody: Person, path: str) -> int:
    code: int = somebody.page.evaluate(
        "(path) => new Promise((done) => { const to = `ws://${location.host}${path}`;"
        " new WebSocket(to).onclose = (event) => done(event.code); })",
        path,
    )
    return code


def test_every_page_fits_a_narrow_window(person: Person, site: Site) -> None:
    page = person.page
    page.set_viewport_size({"width": NARROW["width"], "height": NARROW["height"]})
    for name in PAGES:
        page.goto(f"{site.origin}/#/{name}")
        expect(page.locator("h2").first).to_be_visible()
        page.wait_for_load_state("networkidle") if name in ("images", "classes") else None
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"], name
        if name == "machines":
            person.shot("narrow")


def test_text_of_guests_is_text(person: Person, site: Site) -> None:
    site.somebody.ok("exec", "web", "--", "sh", "-c", "echo '<img src=x onerror=alert(1)>' >/proc/mconsole")
    person.page.goto(f"{site.origin}/#/events")
    expect(person.page.locator("ol")).to_contain_text("<img src=x")
    assert person.page.locator("ol img").count() == 0
