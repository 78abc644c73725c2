"""`uml class`: a machine for each student, all from one image."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runtime.cli.path import PATH
from runtime.cli.printing import print_table, printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from runtime.web.classes import Class
    from runtime.web.fleet import Result


@click.group("class")
def command() -> None:
    """Classes: a machine for each student, all from one image, which stays as it is.

    \b
    Example:
      uml class create lab --image debian.img --students list.csv
      uml class start lab
      uml class links lab --at http://127.0.0.1:8080
    """


@command.command("create")
@click.option(
    "--image",
    type=PATH,
    required=True,
    metavar="FILE",
    help="What all begin with.",
)
@click.option(
    "--students",
    type=PATH,
    required=True,
    metavar="FILE",
    help="Names, one a line, or a CSV.",
)
@click.option("--mem", default="256M", metavar="SIZE", help="Memory of each machine.  [256M]")
@click.argument("name")
def create_(name: str, image: Path, students: Path, mem: str) -> None:
    """Make a class. Each student gets a COW file over the image, and a secret.

    \b
    Example:
      uml class create lab --image debian.img --students list.csv
    """
    from runtime.process.memory import parse_size
    from runtime.web import classes

    made = classes.create(name, image, classes.students_in(students), parse_size(mem))
    click.echo(f"{name}: {len(made.students)} students")


@command.command("ls")
def ls_() -> None:
    """List the classes.

    \b
    Example:
      uml class ls
    """
    from runtime.web import classes

    rows = []
    for lesson in map(classes.load, classes.names()):
        running = sum(classes.running(lesson, student.name) for student in lesson.students)
        rows.append((lesson.name, f"{running} of {len(lesson.students)} run", lesson.image))
    print_table(("CLASS", "STUDENTS", "IMAGE"), rows)


@command.command("links")
@click.option("--at", default="http://127.0.0.1:8080", metavar="URL", help="Where `uml web` is.")
@click.argument("name")
def links_(name: str, at: str) -> None:
    """Print each student's link, which opens the console of that student's machine in `uml web`, and nothing else.

    \b
    Example:
      uml class links lab --at https://lab.example.org:8443
    """
    from runtime.web import classes

    for student in classes.load(name).students:
        click.echo(f"{student.name}\t{at.rstrip('/')}/?token={student.secret}")


@command.command("start")
@click.argument("name")
def start_(name: str) -> int:
    """Boot the machines of a class that do not run.

    \b
    Example:
      uml class start lab
    """
    from runtime.web import fleet

    return _do(name, fleet.start_all)


@command.command("halt")
@click.argument("name")
def halt_(name: str) -> int:
    """End the machines of a class. What students changed stays.

    \b
    Example:
      uml class halt lab
    """
    from runtime.web import fleet

    return _do(name, fleet.halt_all)


@command.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--timeout", type=float, default=60.0, metavar="S", help="End it after S seconds.  [60]")
@click.argument("name")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND...")
def exec_(name: str, argv: tuple[str, ...], timeout: float) -> int:
    """Run a command in all machines of a class. Exit status 1 if it failed in one of them.

    \b
    Example:
      uml class exec lab -- uptime
    """
    from runtime.web import fleet

    if argv[0] == "--":
        argv = argv[1:]
    return _do(name, lambda lesson: fleet.run_in_all(lesson, argv, timeout))


@command.command("reset")
@click.argument("name")
@click.argument("student")
def reset_(name: str, student: str) -> None:
    """Have a student's machine begin anew with the image: all that the student changed is lost.

    \b
    Example:
      uml class reset lab anna
    """
    import trio

    from runtime.web import classes, fleet

    trio.run(fleet.reset, classes.load(name), student)


@command.command("remove")
@click.argument("name")
def remove_(name: str) -> None:
    """Remove a class whose machines are off, and all that its students changed.

    \b
    Example:
      uml class remove lab
    """
    from runtime.web import classes

    classes.remove(classes.load(name))


def _do(name: str, work: Callable[[Class], Awaitable[list[Result]]]) -> int:
    import trio

    from runtime.web import classes

    results = trio.run(work, classes.load(name))
    for each in results:
        lines = printable_lines(each.text.rstrip("\n")).replace("\n", "\n  ")
        print(f"{printable(each.student)}: {lines}", file=sys.stdout if each.ok else sys.stderr)
    return 0 if all(each.ok for each in results) else 1
