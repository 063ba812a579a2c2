"""Which form of an answer a client wants."""

from collections.abc import Sequence


def preferred(accept: str | None, offers: Sequence[str]) -> str:
    """The offer that an `Accept` header asks for; the first where it asks for none of them.

    Of offers that are wanted alike the first wins.
    """
    wanted = dict(_ranges(accept or ""))
    if not wanted:
        return offers[0]
    return max(offers, key=lambda offer: (_quality(offer, wanted), -offers.index(offer)))


def _quality(offer: str, wanted: dict[str, float]) -> float:
    kind = offer.partition("/")[0]
    for name in (offer, f"{kind}/*", "*/*"):  # the most specific range decides
        if name in wanted:
            return wanted[name]
    return 0.0


def _ranges(accept: str) -> list[tuple[str, float]]:
    found = []
    for part in accept.split(","):
        name, *options = (item.strip().lower() for item in part.split(";"))
        if name:
            found.append((name, _weight(options)))
    return found


def _weight(options: Sequence[str]) -> float:
    for option in options:
        if option.startswith("q="):
            try:
                return float(option[2:])
            except ValueError:
                return 0.0
    return 1.0
