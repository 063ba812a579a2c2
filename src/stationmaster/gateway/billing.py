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


class Tariff(msgspec.Struct, frozen=True):
    """By which a call is billed: the price list `prices`, the model that was asked for, its rates.

    Tokens cost `share` of what the list says; `rates` are those of a whole call.
    """

    pricing: Pricing
    prices: str
    model: str
    rates: Rates
    share: Decimal = Decimal(1)

    def cost(self, served: Served, body: CallBody) -> MicroDollars:
        """What it costs, rounded up once."""
        if not served.web_searches and served.usage == _NONE:
            return 0
        geo = served.inference_geo or body.inference_geo
        speed = served.speed or body.speed
        dollars = self.rates.search * served.web_searches
        for model, usage in served.parts:
            rates = self._rates_of(model or self.model, speed)
            dollars += rates.cost(usage, inference_geo=geo) * self.share
        return to_micros(dollars)

    def _rates_of(self, model: str, speed: str | None) -> Rates:
        try:
            return self.pricing.rates(model, prices=self.prices, speed=speed)
        except NotFound:
            # Served by a model nobody knows: the dearest known for this call.
            return Rates(((0, self.rates.worst),), self.rates.worst)
