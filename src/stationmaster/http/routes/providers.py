"""Which providers there are, and what is known of their models."""

from contextlib import suppress
from typing import Annotated

from fastapi import FastAPI, Path, Request

from stationmaster.gateway import Gateway
from stationmaster.gateway.listing import Listings
from stationmaster.gateway.pricing import Rates
from stationmaster.http.deps import Caller, Given
from stationmaster.http.routes.table import add
from stationmaster.http.shapes.process import ProviderModel, ProviderModels, ProviderView
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.principal import Principal

CLAUDE = "claude"


async def list_providers(request: Request, services: Given, caller: Caller) -> list[ProviderView]:
    """The providers of this server, and those of their models that you may use."""
    gateway = services.gateway
    named = await _by_provider(request.app.state.listings, gateway, caller)
    return [
        ProviderView(
            name=upstream.name,
            available=upstream.breaker.ready,
            models=sorted(named.get(upstream.name, ())),
        )
        for upstream in gateway.models.upstreams()
    ]


async def list_provider_models(
    request: Request,
    provider: Annotated[str, Path(description="Its name.")],
    services: Given,
    caller: Caller,
) -> ProviderModels:
    """What is known of a provider's models: how much they write, and read."""
    gateway = services.gateway
    if provider not in {upstream.name for upstream in gateway.models.upstreams()}:
        raise NotFound("There is no such provider.", param="provider")
    named = await _by_provider(request.app.state.listings, gateway, caller)
    models = {name: _known(gateway, name, provider) for name in sorted(named.get(provider, ()))}
    return ProviderModels(provider=provider, models=models)


async def _by_provider(
    listings: Listings, gateway: Gateway, caller: Principal
) -> dict[str, set[str]]:
    """Names of models, aliases too, by each provider that may be asked for them."""
    models = gateway.models
    names = [each.name for each in await listings.of(models)]
    found: dict[str, set[str]] = {}
    for name in (*names, *models.catalogue.aliases):
        if not gateway.may_use(caller, name):
            continue
        try:
            targets = models.targets(name)
        except NotFound:
            continue
        for target in targets:
            found.setdefault(target.upstream.name, set()).add(name)
    return found


def _known(gateway: Gateway, name: str, provider: str) -> ProviderModel:
    models = gateway.models
    target = next(each for each in models.targets(name) if each.upstream.name == provider)
    rates: Rates | None = None
    with suppress(NotFound):  # it has no price: nobody can tell of it, or call it
        rates = models.pricing.rates(target.model, prices=target.prices)
    able = True if CLAUDE in target.model else None
    return ProviderModel(
        max_tokens=None if rates is None else rates.max_output,
        context_window=None if rates is None else rates.context_window,
        supports_functions=able,
        supports_vision=able,
    )


def install(api: FastAPI) -> None:
    """Add the routes."""
    here, tag = "/v1/providers", "models"
    add(
        api,
        "GET",
        here,
        list_providers,
        tag=tag,
        summary="List the providers",
        reply=list[ProviderView],
    )
    add(
        api,
        "GET",
        here + "/{provider}/models",
        list_provider_models,
        tag=tag,
        summary="List a provider's models",
        reply=ProviderModels,
        errors=(404,),
    )
