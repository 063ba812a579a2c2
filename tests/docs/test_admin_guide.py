"""The Admin API's guide names every call that the SDK has: here, or answered 404."""

import re
from functools import cached_property
from typing import Any

from anthropic._resource import SyncAPIResource
from anthropic.resources.beta.organization import Organization

from tests.docs.pages import ROOT

GUIDE = (ROOT / "docs" / "guides" / "admin-api.md").read_text(encoding="utf-8")
BESIDE = ("with_raw_response", "with_streaming_response")


def section(title: str) -> str:
    return GUIDE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def here() -> set[str]:
    """The calls of the first table, as `resource.call`."""
    found = set()
    table = [line for line in section("What there is").splitlines() if line.startswith("|")]
    for line in table:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for resource in re.findall(r"`([\w.]+)`", cells[0]):
            prefix = "" if resource == "organization" else f"{resource}."
            found |= {prefix + call.strip() for call in cells[1].split(",")}
    return found


def calls(kind: type[Any], path: str = "") -> set[str]:
    """The calls of the SDK, as `resource.call`."""
    found = set()
    for name, value in vars(kind).items():
        if name.startswith("_") or name in BESIDE:
            continue
        if isinstance(value, cached_property):
            found |= calls(_resource(value), f"{path}{name}.")
        elif callable(value):
            found.add(path + name)
    return found


def _resource(of: "cached_property[Any]") -> type[Any]:
    made = of.func(Organization(_NoClient()))  # type: ignore[arg-type]
    assert isinstance(made, SyncAPIResource)
    return type(made)


class _NoClient:
    """What a resource takes of its client when it is made."""

    def __getattr__(self, name: str) -> None:
        return None


def test_every_call_is_here_or_named_as_missing() -> None:
    missing = set(re.findall(r"`([\w.]+)`", section("What answers 404")))
    sdk = calls(Organization)
    assert len(sdk) > 100
    assert here() - sdk == set(), "the SDK has no such calls"
    silent = sdk - here()
    unnamed = {call for call in silent if call.split(".")[0] not in missing}
    assert unnamed == set()
    assert {call.split(".")[0] for call in here()} & (missing - {"analytics"}) == set()
