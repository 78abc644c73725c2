"""Machines, for the page: what there are, starting, ending, their management consoles and commands."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from runtime.machines import client
from runtime.machines.directory import LOG, check_umid
from runtime.machines.starting import start
from runtime.mconsole.client import Client
from runtime.mconsole.sockets import find_socket
from runtime.process.memory import parse_size
from runtime.web.answers import Forbidden, answer, answering, body, text, visitor
from runtime.web.following import Machines
from runtime.web.images import Images
from umlfs.errors import UmlError, UsageError

HALT_SECONDS: Final = 60.0
IN_ORDER: Final = ("halt", "reboot")
BY_CONSOLE: Final = ("stop", "go", "cad")
LOG_MAX: Final = 64 << 10
READING: Final = frozenset({"version", "help", "devices", "stats"})
"""Requests to a management console that change nothing."""


class MachineRoutes:
    """Answers of what concerns machines."""

    def __init__(self, machines: Machines, images: Images, *, read_only: bool) -> None:
        self._machines = machines
        self._images = images
        self._read_only = read_only

    def routes(self) -> list[Route]:
        """What is answered."""
        return [
            Route("/api/me", answering(self._me)),
            Route("/api/machines", answering(self._list), methods=["GET"]),
            Route("/api/machines", answering(self._start), methods=["POST"]),
            Route("/api/machines/{umid}/log", answering(self._log)),
            Route("/api/machines/{umid}/mconsole", answering(self._mconsole), methods=["POST"]),
            Route("/api/machines/{umid}/power", answering(self._power), methods=["POST"]),
        ]

    async def _me(self, request: Request) -> Response:
        who = visitor(request)
        message = {"name": who.name, "umid": who.umid, "read_only": self._read_only, "student": who.is_student}
        return answer(message if who.is_student else {**message, "directory": str(self._images.directory)})

    async def _list(self, request: Request) -> Response:
        who = visitor(request)
        found = await self._machines.listed()
        return answer([each for each in found if not who.is_student or each["umid"] == who.umid])

    async def _start(self, request: Request) -> Response:
        self._may_change(request)
        umid = await start(self._description(await body(request)))
        self._machines.forget()
        return answer({"umid": umid})

    def _description(self, form: dict[str, Any]) -> dict[str, Any]:
        """From the form to a description. UsageError."""
        table: dict[str, Any] = {}
        if umid := text(form, "umid").strip():
            table["umid"] = check_umid(umid)
        if memory := text(form, "memory").strip():
            table["memory"] = parse_size(memory)
        if root := text(form, "root"):
            table["root"] = str(self._images.source(root))
            table["throwaway"] = form.get("throwaway") is True
        if disk := text(form, "disk"):
            table["ubds"] = [f"ubd0={self._images.path(disk)}"]
        if network := text(form, "network"):
            if network not in ("user", "none"):
                raise UsageError(f"network '{network}'", "choose user or none")
            table["networks"] = [network]
        return table

    async def _log(self, request: Request) -> Response:
        self._may_see_all(request)
        path = client.find(request.path_params["umid"])
        with (path / LOG).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - LOG_MAX))
            return answer({"text": file.read(LOG_MAX).decode(errors="replace")})

    async def _mconsole(self, request: Request) -> Response:
        self._may_see_all(request)
        words = text(await body(request), "request").strip()
        if not words:
            raise UsageError("no request", "'help' lists what there is")
        if self._read_only and words.split()[0] not in READING:
            raise Forbidden("this page may only read")
        reply = await Client(find_socket(request.path_params["umid"])).request(words)
        self._machines.forget()
        return answer({"text": reply.text, "err": reply.err})

    async def _power(self, request: Request) -> Response:
        self._may_change(request)
        action, umid = text(await body(request), "action"), request.path_params["umid"]
        if action in IN_ORDER:
            await client.ask(client.find(umid), {"do": "power", "action": action, "seconds": HALT_SECONDS})
        elif action in BY_CONSOLE:
            reply = await Client(find_socket(umid)).request(action)
            if reply.err:
                raise UmlError(f"{umid}: {reply.text.strip()}")
        else:
            raise UsageError(f"'{action}' is no action", f"there are {', '.join((*IN_ORDER, *BY_CONSOLE))}")
        self._machines.forget()
        return answer({"done": action})

    def _may_see_all(self, request: Request) -> None:
        if visitor(request).is_student:
            raise Forbidden("only the teacher may do that")

    def _may_change(self, request: Request) -> None:
        self._may_see_all(request)
        if self._read_only:
            raise Forbidden("this page may only read")
