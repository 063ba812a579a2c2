"""An item of a streamed response, from its beginning to its end.

Every kind tells the same story: the item is added, its part is added, pieces come, the part is
done, the item is done.
"""

from typing import Any

from stationmaster.gateway.translation.reply import Block
from stationmaster.gateway.translation.responses.items import Items, content

Events = list[dict[str, Any]]


class OpenItem:
    """The item of `block`, at the place `number` of the output. Gives events without numbers."""

    def __init__(self, items: Items, block: Block, number: int) -> None:
        self.block = block
        self._items = items
        self._number = number
        self._begun = False

    def begin(self) -> Events:
        """The item is there, without anything in it."""
        block, number = self.block, self._number
        match block.kind:
            case "call":
                item = self._items.call(block, number, arguments="", status="in_progress")
            case "thinking" | "hidden":
                item = self._items.reasoning(block, number, over=False)
            case _:
                item = self._items.message(number, [], status="in_progress")
        self._id = item["id"]
        added = {"kind": "response.output_item.added", "output_index": number, "item": item}
        if block.kind in ("text", "refusal"):
            return [added, self._part("added", content(block, ""))]
        return [added]

    def piece(self, text: str) -> Events:
        """Some more of it."""
        match self.block.kind:
            case "text":
                return [self._at("output_text.delta", content_index=0, delta=text, logprobs=[])]
            case "refusal":
                return [self._at("refusal.delta", content_index=0, delta=text)]
            case "call":
                return [self._at("function_call_arguments.delta", delta=text)]
            case _:
                return [
                    *self._summary(),
                    self._at("reasoning_summary_text.delta", summary_index=0, delta=text),
                ]

    def end(self) -> tuple[Events, dict[str, Any]]:
        """It is whole: the events that say so, and the item."""
        block = self.block
        text = block.text
        item = self._items.whole(block, self._number)
        ending: Events = []
        match block.kind:
            case "text":
                ending = [
                    self._at("output_text.done", content_index=0, text=text, logprobs=[]),
                    self._part("done", content(block, text)),
                ]
            case "refusal":
                ending = [
                    self._at("refusal.done", content_index=0, refusal=text),
                    self._part("done", content(block, text)),
                ]
            case "call":
                # Without arguments nothing came, and an empty text is no JSON.
                ending = [] if text else self.piece("{}")
                ending.append(self._at("function_call_arguments.done", arguments=item["arguments"]))
            case _ if self._begun:
                part = {"type": "summary_text", "text": text}
                ending = [
                    self._at("reasoning_summary_text.done", summary_index=0, text=text),
                    self._at("reasoning_summary_part.done", summary_index=0, part=part),
                ]
        done = {"kind": "response.output_item.done", "output_index": self._number, "item": item}
        return [*ending, done], item

    def _summary(self) -> Events:
        if self._begun:
            return []
        self._begun = True
        part = {"type": "summary_text", "text": ""}
        return [self._at("reasoning_summary_part.added", summary_index=0, part=part)]

    def _part(self, what: str, part: dict[str, Any]) -> dict[str, Any]:
        return self._at(f"content_part.{what}", content_index=0, part=part)

    def _at(self, kind: str, **members: Any) -> dict[str, Any]:
        return {
            "kind": f"response.{kind}",
            "item_id": self._id,
            "output_index": self._number,
            **members,
        }
