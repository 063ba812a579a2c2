"""What models answered on OpenAI's Responses API, kept for a while so that a client can go on."""

from stationmaster.responses.responses import Conversation, Responses

__all__ = ["Conversation", "Responses"]
