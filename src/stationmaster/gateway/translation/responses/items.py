"""The items of a response's output, one for each block of the reply."""

import hashlib
from typing import Any

from stationmaster.gateway.translation.reply import Begun, Block, CallBegin, Stopped
from stationmaster.gateway.translation.responses.thinking import sealed
from stationmaster.gateway.translation.stamp import Stamp


class Items:
    """Makes the items of one response. An item's id follows from the reply's, and its place."""

    def __init__(self, stamp: Stamp, begun: Begun) -> None:
        self._stamp = stamp
        self._begun = begun

    def whole(self, block: Block, number: int) -> dict[str, Any]:
        """The item of a block that is over, at its place in the output."""
        match block.kind:
            case "call":
                return self.call(block, number, arguments=block.text or "{}", status="completed")
            case "thinking" | "hidden":
                return self.reasoning(block, number, over=True)
            case _:
                return self.message(number, [content(block, block.text)], status="completed")

    def refused(self, stopped: Stopped, number: int) -> list[dict[str, Any]]:
        """What a refusal has to say of itself, as the last message."""
        if stopped.reason != "refusal" or not stopped.explanation:
            return []
        block = Block("refusal", [stopped.explanation])
        return [self.whole(block, number)]

    def message(self, number: int, parts: list[dict[str, Any]], *, status: str) -> dict[str, Any]:
        """Words."""
        return {
            "type": "message",
            "id": self.item_id("msg", number),
            "role": "assistant",
            "status": status,
            "content": parts,
        }

    def call(self, block: Block, number: int, *, arguments: str, status: str) -> dict[str, Any]:
        """A tool call."""
        return {
            "type": "function_call",
            "id": self.item_id("fc", number),
            "call_id": self._stamp.tool_id(self._begun, CallBegin(block.id, block.name), number),
            "name": block.name,
            "arguments": arguments,
            "status": status,
        }

    def reasoning(self, block: Block, number: int, *, over: bool) -> dict[str, Any]:
        """Thinking, with its proof once it is over."""
        words = block.text if over and block.kind == "thinking" else ""
        return {
            "type": "reasoning",
            "id": self.item_id("rs", number),
            "summary": [{"type": "summary_text", "text": words}] if words else [],
            "encrypted_content": sealed(block) if over else None,
            "status": "completed" if over else "in_progress",
        }

    def item_id(self, prefix: str, number: int) -> str:
        """An item's id."""
        seed = f"{self._stamp.reply_id(self._begun, '')} {number}".encode()
        return f"{prefix}_{hashlib.sha256(seed).hexdigest()[:32]}"


def content(block: Block, text: str) -> dict[str, Any]:
    """A message's part."""
    if block.kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
