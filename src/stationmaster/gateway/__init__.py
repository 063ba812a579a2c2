"""The one meter: every model call goes through here, is held for before and settled after."""

from stationmaster.gateway.call import GatewayCall
from stationmaster.gateway.catalogue import Catalogue
from stationmaster.gateway.counting import Counted
from stationmaster.gateway.dispatch import Gateway
from stationmaster.gateway.pricing import ModelFacts, Pricing
from stationmaster.gateway.routing import Models, Route, Target
from stationmaster.gateway.upstreams import Care, UpstreamOf

__all__ = [
    "Care",
    "Catalogue",
    "Counted",
    "Gateway",
    "GatewayCall",
    "ModelFacts",
    "Models",
    "Pricing",
    "Route",
    "Target",
    "UpstreamOf",
]
