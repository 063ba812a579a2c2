"""Embeddings: asked in OpenAI's format, told in Ollama's, and back."""

import base64
from array import array
from sys import byteorder
from typing import Any, Literal

import msgspec

from stationmaster.kernel.errors import Invalid, Upstream
from stationmaster.providers.upstream import WholeBody

Json = dict[str, Any]


class EmbeddingsRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What of OpenAI's request is understood here. Lists of token numbers are not."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


class _Answer(msgspec.Struct):
    embeddings: list[list[float]]
    model: str = ""
    prompt_eval_count: int = 0


_answer = msgspec.json.Decoder(_Answer)


def read_embeddings(body: bytes) -> EmbeddingsRequest:
    """Read a request. Raises `Invalid` naming what is wrong, or is nothing to Ollama."""
    try:
        given = msgspec.json.decode(body, type=Json)
        # Who the user is changes nothing.
        fields = {k: v for k, v in given.items() if v is not None and k != "user"}
        return msgspec.convert(fields, EmbeddingsRequest)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Invalid(f"Ollama cannot be asked this: {error}.") from None


def told(asked: EmbeddingsRequest, *, model: str, keep_alive: str | int | None) -> Json:
    """The body for `/api/embed`."""
    # An input that is too long is refused, as OpenAI does, instead of being cut.
    body: Json = {"model": model, "input": asked.input, "truncate": False}
    if asked.dimensions is not None:
        body["dimensions"] = asked.dimensions
    if keep_alive is not None:
        body["keep_alive"] = keep_alive
    return body


class Embeddings(WholeBody):
    """The answer, in the encoding that was asked for."""

    def __init__(self, asked: EmbeddingsRequest) -> None:
        super().__init__()
        self._base64 = asked.encoding_format == "base64"
        self._count = 1 if isinstance(asked.input, str) else len(asked.input)

    def told(self, body: bytes) -> bytes:
        """See `WholeBody.told`."""
        try:
            answer = _answer.decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            raise Upstream("The model provider's answer cannot be read.") from None
        if len(answer.embeddings) != self._count:
            raise Upstream("The model provider's answer has not one embedding for each input.")
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if self._base64 else vector,
            }
            for index, vector in enumerate(answer.embeddings)
        ]
        tokens = answer.prompt_eval_count
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return msgspec.json.encode(
            {"object": "list", "data": data, "model": answer.model, "usage": usage}
        )


def _packed(vector: list[float]) -> str:
    """OpenAI's form: floats of 32 bits, little-endian, in base64."""
    packed = array("f", vector)
    if byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()
