"""The choice of a model, with what the project has used in sight."""

from stationmaster.budgets import Reports
from stationmaster.budgets.report import Standing
from stationmaster.gateway.automatic import Advice, advise
from stationmaster.http.services import HttpOptions
from stationmaster.kernel.principal import Principal


class Adviser:
    """Chooses for callers."""

    def __init__(self, reports: Reports, options: HttpOptions) -> None:
        self._reports = reports
        self._options = options

    async def advise(
        self, principal: Principal, prompt: str, context: int
    ) -> tuple[Advice, Standing]:
        """The model for a prompt with `context` tokens before it."""
        standing = await self._reports.standing(principal)
        threshold = self._options.cost_threshold
        advice = advise(
            prompt,
            context=context,
            remaining=standing.remaining,
            over_threshold=threshold is not None and standing.cost > threshold,
            usual=self._options.default_model,
        )
        return advice, standing
