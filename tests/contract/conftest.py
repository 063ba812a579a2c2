"""What several of the contracts are tested on."""

from tests.support.brokers import place

__all__ = ["place"]
