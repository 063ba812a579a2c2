"""A small pooled HTTP/1.1 client for model providers; httptools does the parsing."""

from stationmaster.providers.upstream.client import UpstreamClient
from stationmaster.providers.upstream.endpoint import Endpoint, document
from stationmaster.providers.upstream.reply import UpstreamReply
from stationmaster.providers.upstream.timeouts import Timeouts
from stationmaster.providers.upstream.translated import TranslatedReply, Translation, WholeBody

__all__ = [
    "Endpoint",
    "Timeouts",
    "TranslatedReply",
    "Translation",
    "UpstreamClient",
    "UpstreamReply",
    "WholeBody",
    "document",
]
