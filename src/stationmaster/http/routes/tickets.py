"""Tickets for sockets."""

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from stationmaster.access.tickets import LIFETIME_S
from stationmaster.http.deps import Caller, Given
from stationmaster.http.gatekeeper import credential
from stationmaster.http.limiting import address_of
from stationmaster.http.routes.table import add
from stationmaster.http.shapes.stream import SocketTicket, TicketRequest
from stationmaster.kernel.clock import iso
from stationmaster.kernel.errors import Invalid


async def create_stream_ticket(
    body: TicketRequest, request: Request, services: Given, caller: Caller
) -> Response:
    """Take a ticket, which opens one socket as you within a minute: `/v1/stream?ticket=…`."""
    secret = credential(request.scope["headers"])
    if secret is None:
        raise Invalid("Without a credential there is nothing to take a ticket for.")
    ticket, expires_at = await services.tickets.issue(
        caller, secret, address=address_of(request.scope) if body.bind_address else None
    )
    view = SocketTicket(ticket=ticket, expires_at=iso(expires_at), expires_in=LIFETIME_S)
    return JSONResponse(
        view.model_dump(mode="json"), status_code=201, headers={"cache-control": "no-store"}
    )


def install(api: FastAPI) -> None:
    """Add the route."""
    add(
        api,
        "POST",
        "/v1/stream/tickets",
        create_stream_ticket,
        tag="sign-in",
        summary="Take a ticket for a socket",
        reply=SocketTicket,
        status=201,
        errors=(413, 422),
    )
