"""Signing in at an identity provider: there, and back."""

from http.cookies import SimpleCookie
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import RedirectResponse, Response

from stationmaster.access.oidc import ATTEMPT_S, OidcSignIns
from stationmaster.http.deps import Given
from stationmaster.http.limiting import admit_unknown
from stationmaster.http.open_route import add_open
from stationmaster.http.proxies import secure
from stationmaster.http.routes.signin import granted
from stationmaster.http.routes.table import problems
from stationmaster.http.services import Services
from stationmaster.http.shapes.signin import TokenGrant
from stationmaster.kernel.errors import Invalid, NotFound, Unauthenticated

COOKIE = "sm_oidc"
HERE = "/v1/auth/oidc"
_MAX = 4096


async def begin_oidc(request: Request, services: Given) -> Response:
    """Go to the identity provider; it sends the browser back to the callback."""
    begun = await _of(services).begin()
    answer = RedirectResponse(begun.url, status_code=303, headers={"cache-control": "no-store"})
    answer.set_cookie(
        COOKIE,
        begun.browser,
        max_age=round(ATTEMPT_S),
        path=HERE,
        httponly=True,
        secure=secure(request.scope),
        samesite="lax",
    )
    return answer


async def finish_oidc(request: Request, services: Given) -> Response:
    """Where the identity provider sends the browser back to. Answers with the tokens.

    A provider may add parameters of its own, so unknown ones are not refused here.
    """
    await admit_unknown(services.limiter, request.scope, "auth")
    sign_ins = _of(services)
    query = request.query_params
    if "error" in query:
        raise Unauthenticated("The identity provider has refused.", code="oidc_refused")
    state, code = query.get("state", ""), query.get("code", "")
    if not state or not code or max(len(state), len(code)) > _MAX:
        raise Invalid("state and code must be there.")
    grant = await sign_ins.finish(state=state, code=code, browser=_cookie(request))
    answer = granted(grant)
    answer.delete_cookie(COOKIE, path=HERE)
    return answer


def _of(services: Services) -> OidcSignIns:
    if services.oidc is None:
        raise NotFound("There is nothing here.")
    return services.oidc


def _cookie(request: Request) -> str:
    found = SimpleCookie(request.headers.get("cookie", "")[:_MAX]).get(COOKIE)
    return "" if found is None else found.value


def install(api: FastAPI) -> None:
    """Add the routes."""
    away: dict[int | str, dict[str, Any]] = {303: {"description": "To the identity provider"}}
    add_open(
        api,
        "GET",
        f"{HERE}/login",
        begin_oidc,
        tag="sign-in",
        summary="Sign in at the identity provider",
        errors=(404,),
        responses=away,
        response_class=Response,
    )
    api.router.add_api_route(
        f"{HERE}/callback",
        finish_oidc,
        methods=["GET"],
        operation_id="finish_oidc",
        response_model=TokenGrant,
        tags=["sign-in"],
        summary="Come back from the identity provider",
        responses=problems(400, 401, 404, 429, 503),
        openapi_extra={"security": []},
    )
