"""Usage and cost."""

from typing import Annotated

from pydantic import Field

from stationmaster.http.shapes.base import Reply


class ModelUsage(Reply):
    """One model's share."""

    tokens: Annotated[int, Field(description="The sum of the four classes.")]
    cost: Annotated[float, Field(description="In dollars.")]
    calls: int
    input_tokens: int
    output_tokens: int
    cache_write_tokens: int
    cache_read_tokens: int


class UsageGroup(ModelUsage):
    """The share of one group: of a stretch of time, of what `by` names, or of both."""

    starts_at: Annotated[str | None, Field(description="Null without `day` and `hour`.")]
    by: Annotated[
        dict[str, str | None], Field(description="What it is of: the id or name of each kind.")
    ]


class Usage(Reply):
    """What the key's project has used."""

    project_id: str
    period: str
    since: str
    total_tokens: int
    total_cost: Annotated[float, Field(description="In dollars.")]
    total_calls: int
    by_model: dict[str, ModelUsage]
    limit: Annotated[
        int | None,
        Field(description="Tokens, of the project's budget of tokens. Null: it has none."),
    ] = None
    remaining: Annotated[
        int | None, Field(description="Tokens left of it. Null: the project has none.")
    ] = None
    groups: Annotated[
        list[UsageGroup], Field(description="With `group_by`: the sums of each group.")
    ] = []  # noqa: RUF012 - Pydantic copies it
