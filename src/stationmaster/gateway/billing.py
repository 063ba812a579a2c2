"""What was served, in money."""

from decimal import Decimal

import msgspec

from stationmaster.budgets.entry import Usage
from stationmaster.gateway.body import CallBody
from stationmaster.gateway.pricing import Pricing, Rates
from stationmaster.gateway.usage import Served
from stationmaster.kernel.errors import NotFound
from stationmaster.kernel.money import MicroDollars, to_micros

_NONE = Usage()
_NO_DOLLARS = Decimal(0)


class Tariff(msgspec.Struct, frozen=True):
    """By which a call is billed: the price list `prices`, the model that was asked for, its rates.

    Tokens cost `share` of what the list says, all of it where that is None; `rates` are those of a
    whole call.
    """

    pricing: Pricing
    prices: str
    model: str
    rates: Rates
    share: Decimal | None = None

    def cost(self, served: Served, body: CallBody) -> MicroDollars:
        """What it costs, rounded up once."""
        if not served.web_searches and served.usage == _NONE:
            return 0
        geo = served.inference_geo or body.inference_geo
        speed = served.speed or body.speed
        dollars = self.rates.search * served.web_searches if served.web_searches else _NO_DOLLARS
        for model, usage in served.parts:
            part = self._rates_of(model or self.model, speed).cost(usage, inference_geo=geo)
            dollars += part if self.share is None else part * self.share
        return to_micros(dollars)

    def _rates_of(self, model: str, speed: str | None) -> Rates:
        try:
            return self.pricing.rates(model, prices=self.prices, speed=speed)
        except NotFound:
            # Served by a model nobody knows: the dearest known for this call.
            return Rates(((0, self.rates.worst),), self.rates.worst)
