"""Programs on two sides of one directory: scenarios as a table of steps, and the shells that do them in turn.

Each side is a shell that lives as long as the scenario, so that descriptors, children and the current directory are
held from step to step. A step begins when the one before it has ended: that is the barrier.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = "here"
"""The side that has the directory itself."""
THERE: Final = "there"
"""The side that has it by a mount."""

ROTATIONS: Final = 1_000
"""How often a log is rotated in the long form: ten thousand take a mount a quarter of an hour."""

_MARK: Final = "--- done"
_PREAMBLE: Final = """\
soon() {
    tries=0
    until eval "$1"; do
        [ $((tries += 1)) -le 100 ] || { echo "never: $1"; return 1; }
        sleep 0.05
    done
}
save() { cat >.new && mv .new "$1"; }
git() { command git -c user.name=x -c user.email=x@y -c safe.directory=* "$@"; }
"""


class Side:
    """A shell, which `shell` starts."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """`process` is a shell that reads its standard input."""
        self._process = process
        assert process.stdin is not None
        self._input = process.stdin
        assert process.stdout is not None
        self._output = process.stdout
        self.do(_PREAMBLE)

    def do(self, script: str) -> str:
        """What a script says; its errors too."""
        self._input.write(f"{{\n{script}\n}} </dev/null 2>&1; echo '{_MARK}'\n".encode())
        self._input.flush()
        said: list[str] = []
        while (line := self._output.readline().decode()).rstrip("\n") != _MARK:
            assert line, f"the shell ended in: {script}; it said {said}"
            said.append(line)
        return "".join(said)


@contextlib.contextmanager
def shell() -> Iterator[Side]:
    """One on this host."""
    with subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Side(process)
        process.communicate()


@dataclass(frozen=True)
class Step:
    """A script of one side, and what it says on a plain directory."""

    side: str
    script: str
    says: str = ""


@dataclass(frozen=True)
class Scenario:
    """Steps in a directory of their own. `count` in a script is how often something is done."""

    steps: tuple[Step, ...]
    count: int = 5
    often: int = 5
    """`count`, in the long form."""
    apart: frozenset[str] = frozenset()
    """Settings in which it does not hold; docs/coherence.md has each."""


def _scenario(*steps: tuple[str, str, str], count: int = 5, often: int = 5, apart: str = "") -> Scenario:
    return Scenario(tuple(Step(*step) for step in steps), count, often, frozenset(apart.split()))


_ROTATE: Final = """\
n=0; while [ $n -lt $count ]; do
    n=$((n + 1)); echo "$n" >>log; soon '[ "$(tail -n 1 copy 2>/dev/null)" = $n ]' || break; mv log log.1; : >log
done"""

_LOGROTATE: Final = "PATH=$PATH:/sbin:/usr/sbin logrotate -f -s .state .conf"

SCENARIOS: Final = {
    "an editor's save by rename": _scenario(
        (HERE, "echo old >file", ""),
        (THERE, "exec 4<>file; cat file", "old\n"),
        (HERE, "echo new | save file", ""),
        (THERE, "cat <&4; soon '[ \"$(cat file)\" = new ]'; exec 4<&-", "old\n"),
        (THERE, "echo back | save file", ""),
        (HERE, "cat file", "back\n"),
    ),
    "logrotate": _scenario(
        (HERE, "printf '%s/log {\\n create\\n rotate 20\\n}\\n' \"$PWD\" >.conf; chmod 600 .conf; touch log", ""),
        (THERE, "soon '[ -e log ]'; exec 3>>log; echo one >&3", ""),
        (HERE, _LOGROTATE, ""),
        (THERE, "echo two >&3; soon '! [ -s log ]'; exec 3>>log; echo three >&3", ""),
        (HERE, "exec 3>>log; echo four >&3", ""),
        (THERE, "soon 'grep -q four log'; printf '%s/log {\\n create\\n rotate 20\\n}\\n' \"$PWD\" >.conf", ""),
        (THERE, _LOGROTATE + "; exec 3>&-", ""),
        (HERE, "echo five >&3; exec 3>&-; cat log.2 log.1 log", "one\ntwo\nthree\nfour\nfive\n"),
    ),
    "tail -F across rotations": _scenario(
        (HERE, "touch log", ""),
        (THERE, "tail -n +1 -s 0.1 -F log >copy 2>/dev/null & tail=$!", ""),
        (HERE, _ROTATE, ""),
        (THERE, "kill $tail; wait $tail 2>/dev/null; sort -n copy | uniq | wc -l", "$count\n"),
        count=3,
        often=100,
    ),
    "git, branches switched on both sides": _scenario(
        (HERE, "git init -q -b main . && echo main >file && git add file && git commit -qm one", ""),
        (THERE, "soon '[ -e .git/HEAD ]'; git checkout -qb other && echo other >file && git commit -qam two", ""),
        (HERE, "git checkout -q main; cat file; git status --short", "main\n"),
        (THERE, "soon '[ \"$(cat file)\" = main ]'; git checkout -q other; git merge -q main; cat file", "other\n"),
        (HERE, "cat file; git status --short; git log --format=%s; git fsck --strict", "other\ntwo\none\n"),
    ),
    "make on one side, edits on the other": _scenario(
        (HERE, "printf 'out: in\\n\\tcp in out\\n' >Makefile; echo one >in", ""),
        (THERE, "soon '[ -e in ]'; make -s; cat out", "one\n"),
        (HERE, "sleep 0.05; echo two | save in", ""),
        (THERE, "soon '[ \"$(cat in)\" = two ]'; make -s; cat out", "two\n"),
        (HERE, "sleep 0.05; echo three >in", ""),
        (THERE, "soon 'make -s && [ \"$(cat out)\" = three ]'; make -q && echo up to date", "up to date\n"),
    ),
    "an upgrade of a running program": _scenario(
        (HERE, "cp /bin/sleep program", ""),
        (
            THERE,
            "soon '[ -x program ]'; ./program 1000 & running=$!; soon '[ \"$(cat /proc/$running/comm)\" = program ]'",
            "",
        ),
        (HERE, "cp /bin/true .next && mv .next program", ""),
        (THERE, "sleep 0.1; kill $running; wait $running 2>/dev/null; echo $?", "143\n"),
        (THERE, "soon './program 1'", ""),
    ),
    "a mail spool by dotlock": _scenario(
        (HERE, "dotlockfile -l -r 0 spool.lock; echo from here >>spool", ""),
        (THERE, "dotlockfile -l -r 0 spool.lock || echo taken", "taken\n"),
        (HERE, "dotlockfile -u spool.lock", ""),
        (THERE, "dotlockfile -l -r 20 -i 1 spool.lock; echo from there >>spool; dotlockfile -u spool.lock", ""),
        (HERE, "dotlockfile -l -r 0 spool.lock; cat spool; dotlockfile -u spool.lock", "from here\nfrom there\n"),
    ),
    "a mail spool by fcntl": _scenario(
        (HERE, "touch spool; exec 5>>spool; flock -x 5; echo from here >&5", ""),
        (THERE, "flock -n spool true || echo taken", "taken\n"),
        (HERE, "exec 5>&-", ""),
        (THERE, "flock spool sh -c 'echo from there >>spool'", ""),
        (HERE, "flock -w 60 spool cat spool", "from here\nfrom there\n"),
        apart="bindfs",
    ),
    "dpkg's database": _scenario(
        (HERE, "mkdir -p db/updates db/info root p/DEBIAN; touch db/status db/available", ""),
        (
            HERE,
            "for n in a b; do"
            " printf 'Package: %s\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' $n"
            " >p/DEBIAN/control; dpkg-deb --root-owner-group -b p $n.deb >/dev/null; done",
            "",
        ),
        (
            HERE,
            "PATH=$PATH:/sbin dpkg --admindir=db --instdir=root --force-not-root --log=/dev/null -i a.deb >/dev/null",
            "",
        ),
        (
            THERE,
            "soon 'dpkg-query --admindir=db -W a >/dev/null 2>&1'; PATH=$PATH:/sbin:/usr/sbin dpkg --admindir=db"
            " --instdir=root --force-not-root --log=/dev/null -i b.deb >/dev/null",
            "",
        ),
        (HERE, "dpkg-query --admindir=db -W -f '${Package} ${db:Status-Status}\\n'", "a installed\nb installed\n"),
    ),
    "rsync --inplace": _scenario(
        (HERE, "seq 100000 >source; cp source file", ""),
        (THERE, "exec 6<file; cksum <&6 >/dev/null", ""),
        (
            HERE,
            'n=0; while [ $n -lt $count ]; do n=$((n + 1)); sed -i "$((n * 997))s/.*/line $n/" source;'
            " rsync --inplace --no-whole-file --checksum source file; done; cksum <source >sum",
            "",
        ),
        (THERE, 'soon \'[ "$(cksum <file)" = "$(cat sum)" ]\'; exec 6<&-', ""),
        (THERE, "echo more >>source; rsync --inplace --no-whole-file --checksum source file", ""),
        (HERE, "cmp source file && tail -n 1 file", "more\n"),
        count=2,
        often=100,
    ),
    "a random writer, as of torrents": _scenario(
        (HERE, "head -c 300000 /dev/zero >file; cp file copy", ""),
        (THERE, "exec 6<file; cat <&6 | wc -c", "300000\n"),
        (
            HERE,
            "n=0; while [ $n -lt $count ]; do n=$((n + 1));"
            " head -c 999 /dev/urandom | dd of=file bs=999 seek=$((n * 37 % 300))"
            " conv=notrunc status=none; done; cksum <file >sum",
            "",
        ),
        (THERE, 'soon \'[ "$(cksum <file)" = "$(cat sum)" ]\'; exec 6<&-', ""),
        (
            THERE,
            "n=0; while [ $n -lt $count ]; do n=$((n + 1)); printf x | dd of=file bs=1 seek=$((n * 7919 % 300000))"
            " conv=notrunc status=none; done; cksum <file >sum",
            "",
        ),
        (HERE, '[ "$(cksum <file)" = "$(cat sum)" ] && echo same', "same\n"),
        count=5,
        often=300,
    ),
    "a file that is removed, and a current directory that moves": _scenario(
        (HERE, "mkdir directory; echo content >file", ""),
        (THERE, "soon '[ -d directory ]'; exec 7<>file; cd directory", ""),
        (HERE, "rm file; mv directory moved", ""),
        (
            THERE,
            "cat <&7; echo more >&7; chmod 600 /proc/self/fd/7; stat -L -c %s:%a /proc/self/fd/7; exec 7>&-;"
            " echo x >made; cd ..",
            "content\n13:600\n",
        ),
        (HERE, "cat moved/made", "x\n"),
        apart="bindfs",
    ),
}


def play_all(setting: str, here: Side, there: Side, tops: tuple[Path, str], long: bool) -> None:
    """Do every scenario that holds in `setting`, in a directory of its own below those that the sides have.

    AssertionError at the first step that says another thing."""
    top, seen = tops
    for number, (name, scenario) in enumerate(SCENARIOS.items()):
        directory = f"{setting}{number}"
        (top / directory).mkdir()
        there.do(f"soon '[ -d {seen}/{directory} ]'")
        if not scenario.apart & {setting, setting.partition("-")[0]}:
            _play(
                name,
                scenario,
                {HERE: here, THERE: there},
                {HERE: f"{top}/{directory}", THERE: f"{seen}/{directory}"},
                long,
            )


def _play(name: str, scenario: Scenario, sides: dict[str, Side], places: dict[str, str], long: bool) -> None:
    count = scenario.often if long else scenario.count
    for side, place in places.items():
        sides[side].do(f"count={count}; cd {place}")
    for step in scenario.steps:
        said = sides[step.side].do(step.script)
        assert said == step.says.replace("$count", str(count)), f"{name}: {step.side}: {step.script}: {said}"


def rotate_while_followed(log: Path, follower: subprocess.Popen[bytes], count: int) -> None:
    """Rotate `log` by rename `count` times, a line in each, once `follower` has said the line. AssertionError if it
    says another."""
    assert follower.stdout is not None
    for number in range(count):
        with log.open("a") as file:
            print(number, file=file)
        assert follower.stdout.readline() == b"%d\n" % number
        log.rename(log.with_suffix(".1"))
        log.touch()
