"""The auditor's API and pages over HTTP: GET and nothing else.

1. Every method but GET is answered 405 before anything looks at it.
2. The connections that answers are read from cannot write; one other connection adds to the access log, and does
   nothing else.
3. Whoever asks shows an access token (Bearer, or the password of Basic, so that a browser will do). The role is the
   token's; what a role may ask stands in `bract.roles`.
4. A refusal is a problem document [RFC 9457] with our code.
"""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bract import __version__
from bract.errors import (
    CODES,
    CONCURRENT,
    DISK,
    FORBIDDEN,
    HUB_FAILED,
    LOG,
    MALFORMED,
    STATE,
    TOKEN,
    UNKNOWN_CAMPAIGN,
    UNKNOWN_SITE,
    UNREACHABLE,
    BractError,
)
from bract_server.auditor.routes import Door, router

_STATUS = {
    TOKEN: 401,
    FORBIDDEN: 403,
    STATE: 404,
    UNKNOWN_SITE: 404,
    UNKNOWN_CAMPAIGN: 404,
    LOG: 409,
    CONCURRENT: 503,
    UNREACHABLE: 503,
    DISK: 503,
    HUB_FAILED: 500,
}
"""Of each code; any other is 400."""

_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def create(door: Door) -> ASGIApp:
    """The application, behind the guard that also heads what fails inside."""
    app = FastAPI(
        title="bract: the auditor's questions",
        version=__version__,
        description="Read only. Fifteen questions with as-of and proof, the log's checkpoints and proofs, lineage.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.add_exception_handler(BractError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _missed)
    app.add_exception_handler(Exception, _failed)
    app.include_router(router(door))
    return _Guard(app)


class _Guard:
    """Lets only GET through, and gives every answer its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        if scope["method"] != "GET":
            refusal = _problem(405, FORBIDDEN, "this is read with GET", {"Allow": "GET"})
            await refusal(scope, receive, headed)
            return
        await self._app(scope, receive, headed)


def _problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    body = {
        "type": f"urn:bract:code:{code}",
        "title": CODES[code].cause,
        "status": status,
        "detail": detail or CODES[code].cause,
        "code": code,
        "remedy": CODES[code].remedy,
    }
    return JSONResponse(body, status, headers, media_type="application/problem+json")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, BractError)  # noqa: S101 - what it is registered for
    headers = {"WWW-Authenticate": 'Basic realm="bract auditor", Bearer'} if error.code == TOKEN else None
    return _problem(_STATUS.get(error.code, 400), error.code, error.detail, headers)


async def _invalid(request: Request, error: Exception) -> Response:
    fields = error.errors() if isinstance(error, RequestValidationError) else ()
    named = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in fields)
    return _problem(400, MALFORMED, named)


async def _missed(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _problem(status, MALFORMED, "there is no such page" if status == 404 else "it cannot be read so")


async def _failed(request: Request, error: Exception) -> Response:
    return _problem(500, HUB_FAILED, "")
