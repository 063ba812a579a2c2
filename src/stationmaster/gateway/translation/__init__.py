"""From one wire format to another: requests, replies, streams and errors.

A client's body is read into a `Conversation`, which a provider's body is written from; a
provider's reply is read as events, which the client's is written from. Each format is known in
its own package alone. Nothing here reads a socket or a clock but for a reply's time of making.
"""

from stationmaster.gateway.translation.translation import Translation, translate

__all__ = ["Translation", "translate"]
