"""One caller asks, the others who ask the same meanwhile wait for the answer."""

import asyncio

from stationmaster.cache.answer import Answer, Place


class Flight:
    """A question under way. Whoever leads it lands it, with the answer or with None."""

    def __init__(self, flights: "Flights", place: Place) -> None:
        self._flights = flights
        self._place = place
        self._landing: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()

    def land(self, answer: Answer | None) -> None:
        """Tell those who wait. Idempotent: the first word counts."""
        self._flights.over(self._place, self)
        if not self._landing.done():
            self._landing.set_result(answer)

    async def landed(self) -> Answer | None:
        """The answer; None where its leader got none that can be shared, or left.

        Who is cancelled here cancels nobody else.
        """
        return await asyncio.shield(self._landing)


class Flights:
    """Those of this process."""

    def __init__(self) -> None:
        self._under_way: dict[Place, Flight] = {}

    def join(self, place: Place) -> tuple[Flight, bool]:
        """The flight to a place, and whether the caller leads it: then it must land it."""
        flight = self._under_way.get(place)
        if flight is not None:
            return flight, False
        flight = self._under_way[place] = Flight(self, place)
        return flight, True

    def over(self, place: Place, flight: Flight) -> None:
        """Forget it."""
        if self._under_way.get(place) is flight:
            del self._under_way[place]
