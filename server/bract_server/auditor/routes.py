"""The paths of the auditor's application, and what each answers."""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from bract.digest import parse_digest
from bract.errors import FORBIDDEN, MALFORMED, STATE, TOKEN, BractError
from bract.log.checkpoint import Checkpoint
from bract.question import QUESTIONS, Answer, moment, when
from bract.roles import Verb, check, may
from bract.value import plain
from bract_server.auditor import pages
from bract_server.auditor.questions import ask
from bract_server.auditor.sight import Arguments, Sight
from bract_server.registry.access import Principal
from bract_server.registry.store import HubRegistry

_ANCESTRY = 6
"""The question that asks for lineage."""

_LAST = 2**53
_POINT = re.compile(r"([0-9]{1,15}):(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Door:
    """What the application is made of.

    Attributes:
        sight: everything that may be seen, over connections that cannot write; asked for a site, its part.
        registry: writes the access log.
        clock: now.
    """

    sight: Callable[[str | None], Sight]
    registry: HubRegistry
    clock: Callable[[], datetime]


_NO_NUL = "^[^\\x00]*$"
"""PostgreSQL has no text with a NUL in it."""

_Text = Annotated[str | None, Query(max_length=200, pattern=_NO_NUL)]


@dataclass
class _Asked:
    """The query of a question."""

    as_of: _Text = None
    known: _Text = None
    of: _Text = None
    campaign: _Text = None
    round: Annotated[int | None, Query(ge=1, le=2**31)] = None
    checkpoint: Annotated[str | None, Query(max_length=100, description="SIZE:sha256:ROOT that you kept")] = None
    why: Annotated[str, Query(max_length=500, pattern=_NO_NUL)] = "not stated"

    def arguments(self, at: datetime) -> Arguments:
        point = None
        if self.checkpoint is not None:
            match = _POINT.fullmatch(self.checkpoint)
            if match is None:
                raise BractError(MALFORMED, "checkpoint: SIZE:sha256:ROOT")
            point = Checkpoint("kept", int(match[1]), parse_digest(match[2]), at)
        return Arguments(of=self.of, campaign=self.campaign, number=self.round, checkpoint=point)

    def given(self) -> dict[str, str]:
        """What was narrowed, for a permalink; the times are the answer's."""
        fields = {"of": self.of, "campaign": self.campaign, "round": self.round, "checkpoint": self.checkpoint}
        return {name: str(value) for name, value in fields.items() if value is not None}


def _token(header: str) -> str:
    """The token in an Authorization header [RFC 6750; RFC 7617]."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer" and value:
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (ValueError, binascii.Error) as error:
            raise BractError(TOKEN, "not a Basic header") from error
    raise BractError(TOKEN, "send the token as a Bearer, or as the password of Basic")


def router(door: Door) -> APIRouter:
    """Every path."""
    paths = APIRouter()
    who = Depends(_asker(door))
    _questions(paths, door, who)
    _log(paths, door, who)
    _pages(paths, door, who)
    return paths


def _asker(door: Door) -> Callable[[Request], Principal]:
    """Who asks, by the token in the request."""

    def principal(request: Request) -> Principal:
        return door.registry.principal(_token(request.headers.get("authorization", "")), door.clock())

    return principal


def _answer(door: Door, asker: Principal, number: int, asked: _Asked) -> Answer:
    at = door.clock()
    times = moment(
        None if asked.as_of is None else when(asked.as_of), None if asked.known is None else when(asked.known), at
    )
    sight = door.sight(asker.site)
    return ask(sight, door.registry, asker, number, times, at, arguments=asked.arguments(at), purpose=asked.why)


def _note(door: Door, asker: Principal, verb: Verb, arguments: dict[str, Any]) -> None:
    """Check the role, and what the token is narrowed to, and record the reading."""
    check(asker.role, verb)
    if verb is Verb.LINEAGE and asker.questions and _ANCESTRY not in asker.questions:
        raise BractError(FORBIDDEN, f"the token is not for question {_ANCESTRY}, of which lineage is the whole answer")
    door.registry.accessed(asker, str(verb), arguments, "over HTTP", door.clock())


def _questions(paths: APIRouter, door: Door, who: Any) -> None:
    @paths.get("/v1/questions", summary="The questions that the token may ask")
    def questions(asker: Annotated[Principal, who]) -> list[dict[str, Any]]:
        return [
            {"number": q.number, "title": q.title, "where": q.where, "definition": q.definition}
            for q in QUESTIONS.values()
            if may(asker.role, q.number) and (not asker.questions or q.number in asker.questions)
        ]

    @paths.get("/v1/questions/{number}", summary="One question's answer, with its proof reference")
    def answer(asker: Annotated[Principal, who], number: int, asked: Annotated[_Asked, Depends()]) -> Response:
        told = _answer(door, asker, number, asked)
        return JSONResponse(plain(told), headers=_tagged(told))

    @paths.get("/v1/questions/{number}/rows.csv", summary="The same rows as CSV", response_class=Response)
    def rows(asker: Annotated[Principal, who], number: int, asked: Annotated[_Asked, Depends()]) -> Response:
        told = _answer(door, asker, number, asked)
        headers = _tagged(told) | {"Content-Disposition": f'attachment; filename="question-{told.number}.csv"'}
        return Response(pages.csv(told), media_type="text/csv; charset=utf-8", headers=headers)


def _tagged(told: Answer) -> dict[str, str]:
    """The log's size names the state that an answer is of."""
    return {"ETag": f'"{told.proof.size}"'}


def _log(paths: APIRouter, door: Door, who: Any) -> None:
    @paths.get("/v1/proofs/{seq}", summary="The proof that the log has an entry")
    def proof(asker: Annotated[Principal, who], seq: Annotated[int, Path(ge=1, le=_LAST)]) -> dict[str, Any]:
        _note(door, asker, Verb.PROOFS, {"entry": seq})
        return door.sight(asker.site).proof(seq).to_plain()

    @paths.get("/v1/log/checkpoint", summary="The newest signed checkpoint")
    def checkpoint(asker: Annotated[Principal, who]) -> Response:
        _note(door, asker, Verb.PROOFS, {})
        head = door.sight(None).head()
        if head is None:
            raise BractError(STATE, "the log is empty")
        newest = door.sight(None).proof(head.size)
        told = {
            "origin": head.origin,
            "size": head.size,
            "root": f"sha256:{head.root.hex()}",
            "checkpoint": newest.checkpoint.to_json().decode(),
            "note": newest.note,
        }
        return JSONResponse(told, headers={"ETag": f'"{head.size}"'})

    @paths.get("/v1/lineage/{ref:path}", summary="What a thing comes from, or what came of it")
    def lineage(
        asker: Annotated[Principal, who],
        ref: Annotated[str, Path(pattern=_NO_NUL)],
        direction: Literal["ancestors", "descendants"] = "ancestors",
    ) -> dict[str, Any]:
        _note(door, asker, Verb.LINEAGE, {"of": ref[:160], "direction": direction})
        whole = door.sight(None)
        told = plain(whole.ancestry(ref) if direction == "ancestors" else whole.descendants_of(ref))
        return {"nodes": told["nodes"], "edges": told["edges"]}


def _pages(paths: APIRouter, door: Door, who: Any) -> None:
    @paths.get("/", response_class=HTMLResponse, include_in_schema=False)
    def index(asker: Annotated[Principal, who]) -> HTMLResponse:
        open_to = [q for q in QUESTIONS.values() if may(asker.role, q.number)]
        return HTMLResponse(pages.index(door.sight(None).origin, open_to))

    @paths.get("/questions/{number}", response_class=HTMLResponse, include_in_schema=False)
    def page(asker: Annotated[Principal, who], number: int, asked: Annotated[_Asked, Depends()]) -> HTMLResponse:
        told = _answer(door, asker, number, asked)
        return HTMLResponse(pages.answer(told, asked.given()), headers=_tagged(told))

    @paths.get("/style.css", include_in_schema=False)
    def style() -> Response:
        return Response(pages.STYLE, media_type="text/css; charset=utf-8")
