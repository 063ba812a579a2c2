"""A batch as it comes in: read, and refused where a request could never be made."""

import re
from collections.abc import Iterable, Sequence

import msgspec

from stationmaster.batches.batch import NewRequest
from stationmaster.kernel.errors import Invalid

MAX_REQUESTS = 100_000
MAX_FILE_REQUESTS = 50_000
MAX_CUSTOM_ID = 512
_CUSTOM_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: str
    params: msgspec.Raw


class _Create(msgspec.Struct, forbid_unknown_fields=True):
    requests: list[_Request]


class _Params(msgspec.Struct):
    """What every Messages request has. The rest is the gateway's and the provider's to judge."""

    model: str
    max_tokens: int
    messages: list[msgspec.Raw]
    stream: bool | None = None


_create = msgspec.json.Decoder(_Create)
_params = msgspec.json.Decoder(_Params)


def read_message_batch(raw: bytes) -> list[NewRequest]:
    """The requests of a Message Batch. Raises `Invalid` with the place of the first that is wrong.

    Blocks for as long as it takes: about a second for 100,000 requests.
    """
    try:
        requests = _create.decode(raw).requests
    except RecursionError:
        raise Invalid("The request body nests too deep.") from None
    except msgspec.ValidationError as error:
        raise Invalid(f"{error}.", code="validation_failed", param="requests") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Invalid("The request body is not valid JSON.", code="invalid_json") from None
    if not 0 < len(requests) <= MAX_REQUESTS:
        raise Invalid(f"requests must be 1 to {MAX_REQUESTS} requests.", param="requests")
    _check_ids(requests)
    return [
        NewRequest(request.custom_id, _body(index, bytes(request.params)))
        for index, request in enumerate(requests)
    ]


def _check_ids(requests: Sequence[_Request]) -> None:
    seen: set[str] = set()
    for index, request in enumerate(requests):
        param = f"requests.{index}.custom_id"
        if _CUSTOM_ID.fullmatch(request.custom_id) is None:
            raise Invalid(
                f"{param}: Must be 1 to 64 letters, digits, underscores and hyphens.", param=param
            )
        if request.custom_id in seen:
            raise Invalid(f"{param}: Must be unique in the batch.", param=param)
        seen.add(request.custom_id)


def _body(index: int, raw: bytes) -> str:
    param = f"requests.{index}.params"
    try:
        params = _params.decode(raw)
        body = raw.decode()
    except RecursionError:
        raise Invalid(f"{param}: Nests too deep.", param=param) from None
    except UnicodeDecodeError:
        raise Invalid(f"{param}: Is not valid UTF-8.", param=param) from None
    except msgspec.DecodeError as error:
        raise Invalid(f"{param}: {error}.", param=param) from None
    if params.stream:
        raise Invalid(f"{param}.stream: A batch cannot stream.", param=f"{param}.stream")
    if not params.messages:
        raise Invalid(f"{param}.messages: Must not be empty.", param=f"{param}.messages")
    return body


# --- a file of OpenAI's -----------------------------------------------------------------------


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct):
    """What every call has. The rest is the gateway's and the provider's to judge."""

    model: str
    stream: bool | None = None


_line = msgspec.json.Decoder(_Line)
_line_body = msgspec.json.Decoder(_Body)


def read_batch_file(lines: Iterable[bytes], url: str) -> list[NewRequest]:
    """The requests of a file of JSON lines, all to `url`. Raises `Invalid` with the wrong line.

    Blocks for as long as it takes.
    """
    found: list[NewRequest] = []
    seen: set[str] = set()
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        if len(found) == MAX_FILE_REQUESTS:
            raise Invalid(
                f"The file has more than {MAX_FILE_REQUESTS} requests.", param="input_file_id"
            )
        request = _read_line(raw, url, number)
        if request.custom_id in seen:
            raise _wrong(number, "custom_id must be unique in the file")
        seen.add(request.custom_id)
        found.append(request)
    if not found:
        raise Invalid("The file has no requests.", code="empty_file", param="input_file_id")
    return found


def _read_line(raw: bytes, url: str, number: int) -> NewRequest:
    try:
        line = _line.decode(raw)
        body = _line_body.decode(line.body)
        text = bytes(line.body).decode()
    except RecursionError:
        raise _wrong(number, "it nests too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _wrong(number, str(error)) from None
    if not 0 < len(line.custom_id) <= MAX_CUSTOM_ID or not line.custom_id.isprintable():
        raise _wrong(number, f"custom_id must be 1 to {MAX_CUSTOM_ID} printable characters")
    if (line.method, line.url) != ("POST", url):
        raise _wrong(number, f"it must be a POST to {url}")
    if body.stream:
        raise _wrong(number, "a batch cannot stream")
    return NewRequest(line.custom_id, text)


def _wrong(number: int, why: str) -> Invalid:
    return Invalid(f"Line {number}: {why}.", code="invalid_line", param="input_file_id")
