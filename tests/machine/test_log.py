"""The kernel's log: whole lines, however they come, and never too much of them."""

from __future__ import annotations

from runtime.machine.log import LINE_MAX, LINES, SHOWN, KernelLog


def test_lines_in_pieces() -> None:
    heard: list[bytes] = []
    log = KernelLog(heard.append)
    for piece in (b"on", b"e\r\ntwo\n", b"", b"\nthree"):
        log.feed(piece)
    assert list(log.lines) == heard == [b"one", b"two", b""]
    log.finish()
    assert heard[-1] == b"three"
    assert log.complete.is_set()


def test_what_is_kept_is_bounded() -> None:
    log = KernelLog()
    for number in range(3 * LINES):
        log.feed(b"%d\n" % number)
    assert len(log.lines) == LINES
    for _ in range(10):
        log.feed(b"x" * LINE_MAX)
    log.finish()
    assert len(log.lines[-1]) == LINE_MAX


def test_failures_show_the_end() -> None:
    log = KernelLog()
    assert log.failure("it died").details == ""
    log.feed(b"".join(b"line %d\n" % number for number in range(100)))
    assert log.failure("it died").details.splitlines() == [f"line {number}" for number in range(100 - SHOWN, 100)]


def test_failures_show_the_reason_of_a_panic() -> None:
    log = KernelLog()
    log.feed(b"before\n" * 50 + b"Kernel panic - not syncing: why\n" + b"register\n" * 50)
    shown = log.failure("it died").details.splitlines()
    assert len(shown) == SHOWN
    assert shown.index("Kernel panic - not syncing: why") == SHOWN // 3


def test_a_host_that_forbids_ptrace() -> None:
    """As in some containers: what the kernel says of it says little."""
    log = KernelLog()
    log.feed(b"Core dump limits :\n\tsoft - 0\n")
    assert log.failure("it ended").details == "Core dump limits :\n        soft - 0"
    log.feed(b"Checking that ptrace can change system call numbers...ptrace: Operation not permitted\n")
    error = log.failure("it ended")
    assert (error.what, error.details) == (
        "this host forbids ptrace, by which a kernel runs the processes of its guest",
        "",
    )
    assert "--cap-add SYS_PTRACE" in str(error)
