"""Images and files, for the page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from urllib.parse import quote

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from runtime.inspect.info import image_info
from runtime.inspect.location import Location, machine_source
from runtime.machines.directory import check_umid
from runtime.web import files
from runtime.web.answers import Forbidden, answer, answering, failure_of, visitor
from runtime.web.images import Images
from runtime.web.open_trees import OpenTrees
from umlfs.errors import UsageError


class ImageRoutes:
    """Answers of what concerns images, and files in them and in machines. All of it is the teacher's."""

    def __init__(self, images: Images, trees: OpenTrees, *, read_only: bool) -> None:
        self._images = images
        self._trees = trees
        self._read_only = read_only

    def routes(self) -> list[Route]:
        """What is answered."""
        return [
            Route("/api/images", answering(self._list)),
            Route("/api/image/info", answering(self._info)),
            Route("/api/image/map", answering(self._map)),
            Route("/api/files", answering(self._files)),
            Route("/api/file", answering(self._view), methods=["GET"]),
            Route("/api/file", answering(self._upload), methods=["PUT"]),
            Route("/api/download", answering(self._download)),
            Route("/api/diff", answering(self._diff)),
        ]

    async def _list(self, request: Request) -> Response:
        _teacher(request)
        found, cut = await trio.to_thread.run_sync(self._images.listing)
        return answer({"images": [asdict(each) for each in found], "cut": cut})

    async def _info(self, request: Request) -> Response:
        _teacher(request)
        return answer(asdict(await image_info(self._images.source(_query(request, "image")))))

    async def _map(self, request: Request) -> Response:
        _teacher(request)
        size, layers, below = await trio.to_thread.run_sync(self._images.layers, _query(request, "image"))
        return answer({"size": size, "layers": [asdict(each) for each in layers], "below": below})

    async def _files(self, request: Request) -> Response:
        place = self._place(request)
        async with self._trees.reading(place) as tree:
            return answer(asdict(await files.listing(tree, place.inside)))

    async def _view(self, request: Request) -> Response:
        place = self._place(request)
        async with self._trees.reading(place) as tree:
            return answer(await files.view(tree, place.inside))

    async def _download(self, request: Request) -> Response:
        return _Download(self._trees, self._place(request))

    async def _upload(self, request: Request) -> Response:
        if self._read_only:
            raise Forbidden("this page may only read")
        place = self._place(request)

        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request.stream():
                yield piece

        name, replace = _query(request, "name"), request.query_params.get("replace") == "yes"
        return answer({"size": await files.upload(self._trees, place, name, pieces(), replace=replace)})

    async def _diff(self, request: Request) -> Response:
        _teacher(request)
        one, other = (self._images.location(_query(request, key), _partition(request), "/") for key in ("one", "other"))
        return answer(asdict(await files.differences(one, other)))

    def _place(self, request: Request) -> Location:
        """The place that `image` or `machine`, `partition` and `path` name. UsageError."""
        _teacher(request)
        path = request.query_params.get("path", "/")
        if "\0" in path:
            raise UsageError("a path with a NUL")
        if machine := request.query_params.get("machine"):
            return Location(machine_source(check_umid(machine)), None, path)
        return self._images.location(_query(request, "image"), _partition(request), path)


def _teacher(request: Request) -> None:
    if visitor(request).is_student:
        raise Forbidden("only the teacher may do that")


def _query(request: Request, key: str) -> str:
    found: str | None = request.query_params.get(key)
    if not found:
        raise UsageError(f"'{key}' is missing")
    return found


def _partition(request: Request) -> int | None:
    word = request.query_params.get("partition") or ""
    if word and not (word.isascii() and word.isdigit() and len(word) <= 3):
        raise UsageError(f"partition '{word}'", "give its number")
    return int(word) if word else None


class _Download(Response):
    """A file. What goes wrong before its first byte is answered as ever. What goes wrong later breaks the connection:
    no browser takes a part for the whole."""

    def __init__(self, trees: OpenTrees, place: Location) -> None:
        super().__init__()
        self._trees = trees
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def begin(size: int) -> None:
            nonlocal begun
            begun = True
            name = quote((self._place.path or "file").rstrip("/").rpartition("/")[2], safe="")
            headers = [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", b"%d" % size),
                (b"content-disposition", f"attachment; filename*=UTF-8''{name}".encode()),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def use(piece: memoryview) -> None:
            await send({"type": "http.response.body", "body": bytes(piece), "more_body": True})

        try:
            async with self._trees.reading(self._place) as tree:
                await files.download(tree, self._place.inside, begin, use)
        except (Exception, BaseExceptionGroup) as error:
            if begun:
                raise
            status, message = failure_of(error)
            await answer(message, status)(scope, receive, send)
            return
        await send({"type": "http.response.body", "body": b""})
