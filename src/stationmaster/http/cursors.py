"""A list that goes by ids goes on after one of them."""

from stationmaster.kernel.errors import Invalid, NotFound
from stationmaster.kernel.ids import check_id


def id_cursor(given: str | None, prefix: str, param: str = "page") -> str | None:
    """The id that stands in the parameter `param`; None where nothing does. Raises `Invalid`."""
    if not given:
        return None
    try:
        return check_id(given, prefix)
    except NotFound:
        raise bad_cursor(param) from None


def bad_cursor(param: str = "page") -> Invalid:
    """The refusal of a cursor that never was one."""
    return Invalid(f"{param} is not a cursor of this list.", code="invalid_cursor", param=param)
