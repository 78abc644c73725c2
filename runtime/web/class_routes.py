"""Classes, for the teacher's page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.web import classes, fleet
from runtime.web.answers import Forbidden, answer, answering, body, text, visitor
from runtime.web.following import Machines
from umlfs.errors import UsageError

COMMAND_SECONDS: Final = 60.0


class ClassRoutes:
    """Answers of what concerns classes."""

    def __init__(self, machines: Machines, *, read_only: bool) -> None:
        self._machines = machines
        self._read_only = read_only

    def routes(self) -> list[Route]:
        """What is answered."""
        return [
            Route("/api/classes", answering(self._list)),
            Route("/api/classes/{name}", answering(self._do), methods=["POST"]),
        ]

    async def _list(self, request: Request) -> Response:
        if visitor(request).is_student:
            raise Forbidden("only the teacher may do that")
        return answer([self._told(each) for each in classes.all_classes()])

    def _told(self, lesson: classes.Class) -> dict[str, object]:
        students = [
            {"name": each.name, "umid": lesson.umid(each.name), "runs": classes.running(lesson, each.name)}
            for each in lesson.students
        ]
        return {"name": lesson.name, "image": lesson.image, "students": students}

    async def _do(self, request: Request) -> Response:
        if visitor(request).is_student or self._read_only:
            raise Forbidden("only the teacher may do that" if not self._read_only else "this page may only read")
        lesson, form = classes.load(request.path_params["name"]), await body(request)
        action = text(form, "action")
        results: list[fleet.Result] = []
        if action == "start":
            results = await fleet.start_all(lesson)
        elif action == "halt":
            results = await fleet.halt_all(lesson)
        elif action == "run":
            results = await fleet.run_in_all(lesson, ["/bin/sh", "-c", text(form, "command")], COMMAND_SECONDS)
        elif action == "reset":
            student = text(form, "student")
            await fleet.reset(lesson, student)
            results = [fleet.Result(student, True, "as the image again")]
        else:
            raise UsageError(f"'{action}' is no action", "there are start, halt, run and reset")
        self._machines.forget()
        return answer([asdict(each) for each in results])
