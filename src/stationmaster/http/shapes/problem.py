"""Errors, as RFC 9457 has them."""

from typing import Annotated

from pydantic import Field

from stationmaster.http.shapes.base import Reply


class WrongField(Reply):
    """A field that is not as it must be."""

    param: str
    message: str


class Problem(Reply):
    """Why a request was refused."""

    type: Annotated[str, Field(description="`urn:stationmaster:error:` and the code.")]
    title: str
    status: int
    detail: Annotated[str, Field(description="A sentence for people.")]
    code: Annotated[str, Field(description="Stable, for programs.")]
    request_id: str
    param: Annotated[str | None, Field(description="The field that is to blame.")] = None
    errors: Annotated[
        list[WrongField] | None, Field(description="Every wrong field, where there are several.")
    ] = None
