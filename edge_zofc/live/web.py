"""What a browser may ask the page's server for; the only module that knows Starlette.

    GET   /?token=T       sets the cookie and leads to /           GET   /  /NAME.js  /live.css  /icon.svg
    GET   /live.mjpeg     the camera's pictures                    GET   /events   View, Known and Doing as they change
    GET   /api/pictures   the lesson's pictures                    GET   /picture/N.jpg   one of them, by its number
    POST  /api/...        a gesture; /api/frame takes a picture of the browser's own camera

``guard.py`` says who may ask. The loop here never runs the graph: a request waits on a future of the seer's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.resources import files
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qs

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_zofc.errors import DoesNotFitError, EdgeZofcError, InputError
from edge_zofc.live.camera import BrowserCamera, Camera
from edge_zofc.live.gestures import Gestures
from edge_zofc.live.guard import HEADERS, MAX_JSON_BYTES, MAX_PICTURE_BYTES, Guard
from edge_zofc.live.lesson import MAX_PICTURES
from edge_zofc.live.seer import Seer
from edge_zofc.live.streams import Bell, Stream, events, pictures

BODY_SECONDS = 15.0
"""A body that takes longer is refused."""
GESTURE_SECONDS = 60.0
MODULES = ("live", "server", "page", "answer", "things", "holding", "lesson", "doing", "camera")
"""The page's code: ``live.js`` imports the others."""
STATIC = {
    "/": ("index.html", "text/html"),
    "/live.css": ("live.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in MODULES},
}
_PICTURE = re.compile(r"([1-9][0-9]{0,8})\.jpg")

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


Name = Annotated[str, Field(min_length=1, max_length=256)]  # the learner has the rules of names
Serial = Annotated[int, Field(ge=1, lt=10**9)]
Serials = Annotated[tuple[Serial, ...], Field(min_length=1, max_length=MAX_PICTURES)]


class Nothing(_Body):
    """No more to say."""


class Record(_Body):
    """The button for a class is down or up."""

    name: Name
    on: bool


class Correct(_Body):
    """The camera's picture of this number shows this class."""

    name: Name
    picture: Annotated[int, Field(ge=1, lt=10**12)]


class Remove(_Body):
    """Pictures of the lesson."""

    serials: Serials


class Move(_Body):
    """Pictures of the lesson, and the class they show."""

    serials: Serials
    name: Name


class Forget(_Body):
    """A class."""

    name: Name


class Rename(_Body):
    """A class and its new name."""

    old: Name
    new: Name


Gesture = Callable[[Gestures, Any], str]
WRITES: dict[str, tuple[type[_Body], Gesture]] = {
    "/api/record": (Record, lambda hand, asked: hand.record(asked.name, asked.on)),
    "/api/correct": (Correct, lambda hand, asked: hand.correct(asked.name, asked.picture)),
    "/api/forget": (Remove, lambda hand, asked: hand.remove(tuple(dict.fromkeys(asked.serials)))),
    "/api/move": (Move, lambda hand, asked: hand.move(tuple(dict.fromkeys(asked.serials)), asked.name)),
    "/api/forget-class": (Forget, lambda hand, asked: hand.forget(asked.name)),
    "/api/rename": (Rename, lambda hand, asked: hand.rename(asked.old, asked.new)),
    "/api/undo": (Nothing, lambda hand, asked: hand.undo()),
}


def application(seer: Seer, camera: Camera, guard: Guard, bell: Bell) -> ASGIApp:
    """The application behind its guard."""
    counter = [0]
    routes = [
        *(Route(path, partial(_static, guard, name, kind), methods=["GET"]) for path, (name, kind) in STATIC.items()),
        *(Route(path, partial(_write, seer, *asked), methods=["POST"]) for path, asked in WRITES.items()),
        Route("/api/done", partial(_write, seer, Nothing, _done, key="task"), methods=["POST"]),
        Route("/api/frame", partial(_frame, camera), methods=["POST"]),
        Route("/api/pictures", partial(_pictures, seer), methods=["GET"]),
        Route("/picture/{name}", partial(_picture, seer), methods=["GET"]),
        Route("/events", Stream("text/event-stream", lambda: events(seer, bell), counter), methods=["GET"]),
        Route(
            "/live.mjpeg",
            Stream("multipart/x-mixed-replace; boundary=picture", lambda: pictures(camera, bell), counter),
            methods=["GET"],
        ),
    ]
    return Guarded(Starlette(routes=routes, exception_handlers={HTTPException: _told}), guard)


class Guarded:
    """Refuses what the guard refuses, before anything else looks at it; every answer gets HEADERS."""

    def __init__(self, application: ASGIApp, guard: Guard) -> None:
        self._application, self._guard = application, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of ASGI; anything but HTTP is left unanswered."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        asked = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=None).get("token")
        refusal = self._guard.refuse(scope["method"], scope["path"], headers, asked[0] if asked else None)

        async def send_all(message: Message) -> None:
            if message["type"] == "http.response.start":
                always = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *always]}
            await send(message)

        if refusal is None:
            await self._application(scope, receive, send_all)
            return
        # Its body is not read: the connection has to end.
        answer = JSONResponse({"error": refusal.sentence}, refusal.status, {"connection": "close"})
        await answer(scope, receive, send_all)


def _refused(status: int, sentence: str) -> JSONResponse:
    return JSONResponse({"error": sentence}, status)


async def _told(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    sentence = {404: "There is nothing here.", 405: "This is not done here."}.get(status, "That did not work.")
    return _refused(status, sentence)


async def _static(guard: Guard, name: str, kind: str, request: Request) -> Response:
    if name == "index.html" and "token" in request.query_params:
        answer = RedirectResponse("/", 303)
        answer.set_cookie(guard.cookie, guard.token, httponly=True, samesite="strict", path="/")
        return answer
    return Response((files("edge_zofc.live") / "web" / name).read_bytes(), media_type=kind)


async def _body(request: Request, limit: int) -> bytes:
    """The body, which its Content-Length says is within the limit."""
    found = b""
    async for piece in request.stream():
        found += piece
        if len(found) > limit:
            raise HTTPException(413)
    return found


async def _carried_out(seer: Seer, gesture: Callable[[Gestures], T]) -> T:
    return await asyncio.wait_for(asyncio.wrap_future(seer.ask(gesture)), GESTURE_SECONDS)


async def _answered(work: Awaitable[Response]) -> Response:
    """The answer, or the sentence of what went wrong."""
    try:
        return await work
    except EdgeZofcError as error:
        status = 503 if isinstance(error, DoesNotFitError) else 400 if isinstance(error, InputError) else 500
        return _refused(status, str(error))
    except asyncio.TimeoutError:
        return _refused(503, "That took too long; try again.")
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it


def _done(hand: Gestures, asked: Any) -> str:
    return hand.close_lesson()


async def _write(seer: Seer, model: type[_Body], gesture: Gesture, request: Request, *, key: str = "said") -> Response:
    async def work() -> Response:
        body = await asyncio.wait_for(_body(request, MAX_JSON_BYTES), BODY_SECONDS)
        try:
            asked = model.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            return _refused(400, f"{where[:60]}: {first['msg'][:200]}.")
        return JSONResponse({key: await _carried_out(seer, lambda hand: gesture(hand, asked))})

    return await _answered(work())


async def _frame(camera: Camera, request: Request) -> Response:
    async def work() -> Response:
        if not isinstance(camera, BrowserCamera):
            return _refused(409, "The camera is another one; start with --camera browser.")
        body = await asyncio.wait_for(_body(request, MAX_PICTURE_BYTES), BODY_SECONDS)
        camera.put(body)
        return Response(status_code=204)

    return await _answered(work())


async def _pictures(seer: Seer, request: Request) -> Response:
    found = seer.state.known.pictures
    return JSONResponse([[one.serial, one.name, one.part, one.burst] for one in found])


async def _picture(seer: Seer, request: Request) -> Response:
    async def work() -> Response:
        match = _PICTURE.fullmatch(request.path_params["name"])
        serial = int(match[1]) if match else 0
        if all(one.serial != serial for one in seer.state.known.pictures):
            return _refused(404, "There is no such picture.")
        # Bytes that a camera gave: nosniff and the policy above keep a browser from reading them as anything else.
        return Response(await _carried_out(seer, lambda hand: hand.picture(serial)), media_type="image/jpeg")

    return await _answered(work())
