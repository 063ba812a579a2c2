"""Adding and removing top-level members of a JSON object; every value keeps its bytes."""

from collections.abc import Collection, Mapping

import msgspec

from stationmaster.kernel.errors import Invalid

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_members(raw: bytes) -> dict[str, msgspec.Raw]:
    """The members in their order, each as it was written. Raises `Invalid` for anything else."""
    try:
        return _members.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Invalid("The request body must be a JSON object.") from None


def reshaped(
    members: Mapping[str, msgspec.Raw],
    *,
    without: Collection[str] = (),
    defaults: Mapping[str, object],
) -> bytes:
    """The object without some members, and with `defaults` where it has no such member."""
    kept: dict[str, object] = {
        name: value for name, value in members.items() if name not in without
    }
    return msgspec.json.encode({**{k: v for k, v in defaults.items() if k not in kept}, **kept})
