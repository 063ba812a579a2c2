"""Who may do what: organisations, projects, people, API keys, run tokens."""

from stationmaster.access.api_key import ApiKey, Bounds
from stationmaster.access.keys import Keys
from stationmaster.access.last_use import LastUse
from stationmaster.access.resolver import Resolver
from stationmaster.access.rotation import Rotation
from stationmaster.access.tokens import RunTokens
from stationmaster.access.work_tokens import WorkTokens

__all__ = ["ApiKey", "Bounds", "Keys", "LastUse", "Resolver", "Rotation", "RunTokens", "WorkTokens"]
