"""What several of the API's resources share."""

from typing import Annotated, Any, Literal

from pydantic import Field

from stationmaster.http.shapes.base import Reply

JsonObject = dict[str, Any]
Metadata = Annotated[
    dict[str, str],
    Field(description="Up to 16 pairs; keys up to 64 characters, values up to 512."),
]
MetadataPatch = Annotated[
    dict[str, str | None] | None,
    Field(description="A patch: null removes a key, what is left out stays."),
]
NextPage = Annotated[
    str | None, Field(description="The next page's `page`; null on the last page.")
]


class Deleted(Reply):
    """Something that is there no more."""

    id: str
    type: Annotated[str, Field(description="Such as `session_deleted`.")]


class Amount(Reply):
    """An amount of money."""

    amount: Annotated[str, Field(description='In cents: "2500" is $25.00. Rounded up.')]
    currency: Literal["USD"] = "USD"


class SessionBudget(Reply):
    """A spend ceiling."""

    type: Literal["limit"] = "limit"
    max_list_cost: Amount
