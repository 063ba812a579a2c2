"""Reading a list of models: OpenAI's and Anthropic's have the same shape."""

import msgspec

from stationmaster.kernel.errors import Upstream
from stationmaster.providers.upstream import UpstreamReply, document


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


_models = msgspec.json.Decoder(_Models)


async def model_ids(reply: UpstreamReply) -> tuple[str, ...]:
    """The names in `{"data": [{"id": …}]}`. Raises `Upstream` where the answer is another."""
    body = await document(reply)
    try:
        listed = _models.decode(body) if reply.status == 200 else None
    except (msgspec.DecodeError, ValueError):
        listed = None
    if listed is None:
        raise Upstream("The model provider does not list its models.", status=reply.status)
    return tuple(model.id for model in listed.data)
