"""What an endpoint of the framework asks for: the services, and who asks."""

from typing import Annotated

from fastapi import Depends, Request

from stationmaster.http.gatekeeper import Gatekeeper
from stationmaster.http.services import Services
from stationmaster.kernel.principal import Principal


def services_of(request: Request) -> Services:
    """The services that the app was made with."""
    services: Services = request.app.state.services
    return services


def gatekeeper_of(request: Request) -> Gatekeeper:
    """The gatekeeper that the app was made with."""
    gatekeeper: Gatekeeper = request.app.state.gatekeeper
    return gatekeeper


async def _services(request: Request) -> Services:
    return services_of(request)


async def _caller(request: Request) -> Principal:
    # Set by the guarded route before anything of the request was read; without it, no answer.
    principal: Principal = request.state.principal
    return principal


Given = Annotated[Services, Depends(_services)]
Caller = Annotated[Principal, Depends(_caller)]
