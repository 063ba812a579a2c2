"""What a vendor's clients expect of a model call's answer beyond the answer itself."""

from collections.abc import Callable
from dataclasses import dataclass

from stationmaster.http.wire.exchange import RawHeaders
from stationmaster.providers.base import Operation

Refusal = tuple[int, RawHeaders, bytes]
"""A status, headers and a body."""


@dataclass(frozen=True, slots=True)
class Face:
    """One endpoint. `refuse` and `frame` are given an error and the request's id.

    With `counts` the input's tokens are counted, and no model answers.
    `frame` is an error inside a stream that has begun; `told` makes such a frame of the body with
    which a provider refused. `ping` is what says nothing in a stream.
    """

    operation: Operation
    refuse: Callable[[Exception, str], Refusal]
    frame: Callable[[Exception, str], bytes]
    told: Callable[[bytes, str], bytes]
    ping: bytes
    counts: bool = False
