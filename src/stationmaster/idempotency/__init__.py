"""Requests that are done once: keys, and the replies kept for who asks again."""

from stationmaster.idempotency.attempt import Attempt, KeyInUse, KeyReused, Reply
from stationmaster.idempotency.keys import IdempotencyKeys, Place

__all__ = ["Attempt", "IdempotencyKeys", "KeyInUse", "KeyReused", "Place", "Reply"]
