"""What all shapes have in common."""

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """A body from outside: no unknown field, and no value taken for another type's."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Reply(BaseModel):
    """A body of ours."""

    model_config = ConfigDict(frozen=True)
