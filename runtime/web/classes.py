"""Classes: a machine for each student, all from one image, each with a link of its own.

A class is a directory, `~/.local/state/umlfs/classes/NAME`: `class.json` (what it is, and the students' secrets) and a
COW file for each student, over the image, which nobody writes to.
"""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from runtime.machines.directory import check_umid, machines_directory, runs
from umlfs.errors import UmlError, UsageError
from umlfs.host.newfile import new_file

FILE: Final = "class.json"
STUDENTS_MAX: Final = 500
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}\Z")
_LIST: Final = "'uml class ls' lists those that there are"


@dataclass(frozen=True, slots=True)
class Student:
    """One who has a machine of the class."""

    name: str
    secret: str
    """What opens the student's machine, in the link."""


@dataclass(frozen=True, slots=True)
class Class:
    """A class. Paths are absolute."""

    name: str
    image: str
    memory: int
    """Of each machine, in bytes."""
    students: tuple[Student, ...]

    @property
    def directory(self) -> Path:
        return home() / self.name

    def umid(self, student: str) -> str:
        """The name of the student's machine."""
        return f"{self.name}-{student}"

    def cow(self, student: str) -> Path:
        """What the student has changed of the image."""
        return self.directory / f"{student}.cow"

    def student(self, name: str) -> Student:
        """UsageError if there is none of that name."""
        for student in self.students:
            if student.name == name:
                return student
        raise UsageError(f"{name}: nobody of that name is in class {self.name}", f"'uml class links {self.name}'")


def home() -> Path:
    """Where classes are: `$XDG_STATE_HOME/umlfs/classes`."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return Path(base if base.startswith("/") else os.path.expanduser("~/.local/state")) / "umlfs" / "classes"


def create(name: str, image: Path, students: Iterable[str], memory: int) -> Class:
    """Make a class: its directory, secrets, and a COW file for each student. UmlError, UsageError; then nothing is
    left."""
    from umlfs.cow.create import create as create_cow

    _check_name(name)
    names = _checked(name, students)
    if not image.is_file():
        raise UsageError(f"{image}: no such image", "name the image that all begin with")
    made = Class(name, str(image.resolve()), memory, tuple(Student(each, secrets.token_urlsafe(24)) for each in names))
    try:
        made.directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise UmlError(f"{name}: there is such a class", f"'uml class remove {name}' removes it") from None
    try:
        for each in names:
            create_cow(str(made.cow(each)), made.image)
        with new_file(str(made.directory / FILE), 0o600) as fd:
            os.write(fd, json.dumps({"version": 1, **asdict(made)}, indent=1).encode())
    except BaseException:
        shutil.rmtree(made.directory, ignore_errors=True)
        raise
    return made


def load(name: str) -> Class:
    """The class of that name. UmlError if there is none, or it cannot be read."""
    _check_name(name)
    try:
        record = json.loads((home() / name / FILE).read_bytes())
        students = tuple(Student(str(each["name"]), str(each["secret"])) for each in record["students"])
        return Class(name, str(record["image"]), int(record["memory"]), students)
    except FileNotFoundError:
        raise UmlError(f"{name}: no such class", _LIST) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UmlError(f"{home() / name / FILE}: cannot be read: {error}", "restore it, or remove the class") from None


def names() -> list[str]:
    """Of all classes."""
    return sorted(path.parent.name for path in home().glob(f"*/{FILE}"))


def all_classes() -> Iterator[Class]:
    """All that can be read."""
    for name in names():
        try:
            yield load(name)
        except UmlError:
            continue


def reset(lesson: Class, student: str) -> None:
    """The student's machine is as the image again. UmlError while it runs."""
    from umlfs.cow.create import create as create_cow

    lesson.student(student)
    _require_off(lesson, student)
    create_cow(str(lesson.cow(student)), lesson.image, force=True)


def remove(lesson: Class) -> None:
    """Remove the class and all that its students changed. UmlError while a machine of it runs."""
    for student in lesson.students:
        _require_off(lesson, student.name)
    shutil.rmtree(lesson.directory)


def running(lesson: Class, student: str) -> bool:
    """Whether the student's machine runs."""
    return runs(machines_directory() / lesson.umid(student))


def students_in(path: Path) -> list[str]:
    """The names in a file: the first column of a CSV, without a heading `name` or `student`. UmlError."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UmlError(f"{path}: cannot be read: {error}", "give a CSV file, a student a line") from None
    return rows[1:] if rows and rows[0].lower() in ("name", "student") else rows


def _require_off(lesson: Class, student: str) -> None:
    if running(lesson, student):
        umid = lesson.umid(student)
        raise UmlError(f"{umid}: runs", f"end it first: uml halt {umid}")


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise UsageError(f"'{name}' cannot be the name of a class", "use up to 31 letters, digits, '-' and '_'")


def _checked(lesson: str, students: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in students:
        if not _NAME.match(name):
            raise UsageError(f"'{name}' cannot be the name of a student", "use up to 31 letters, digits, '-' and '_'")
        check_umid(f"{lesson}-{name}")
        if name in found:
            raise UsageError(f"{name} is there twice", "give each student a name of their own")
        found.append(name)
    if not found:
        raise UsageError("no students", "list them in a file, one a line")
    if len(found) > STUDENTS_MAX:
        raise UsageError(f"{len(found)} students", f"a class has at most {STUDENTS_MAX}")
    return found
