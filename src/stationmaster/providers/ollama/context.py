"""How large a context to ask for. Ollama's default drops the beginning of what is longer."""

from dataclasses import dataclass

from stationmaster.kernel.errors import Invalid

BYTES_PER_TOKEN = 3
"""Few, so that the estimate errs upwards: code and other scripts take more tokens than prose."""
PROSE_BYTES_PER_TOKEN = 6
"""Many: what is too long by this measure cannot fit."""
IMAGE_TOKENS = 1_600
"""What the vision models that Ollama serves make of one image, at most."""
ANSWER_TOKENS = 4_096
"""Room for an answer whose length the request does not bound."""


@dataclass(frozen=True, slots=True)
class ContextSizes:
    """In tokens. The sizes between are doublings: the model is loaded anew for each other size."""

    least: int = 8_192
    most: int = 131_072

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 < self.least <= self.most:
            raise Invalid("num_ctx must be at least 1 and at most max_num_ctx.", param="num_ctx")

    def fitting(self, *, prompt_bytes: int, images: int, answer: int | None) -> int:
        """The size for a prompt of so many bytes of text and images, and its answer.

        Raises `Invalid` for what does not fit into the largest: it would be cut without a word.
        """
        if prompt_bytes // PROSE_BYTES_PER_TOKEN > self.most:
            raise Invalid(
                f"The prompt is longer than the context of {self.most} tokens.",
                code="context_length_exceeded",
                param="messages",
            )
        prompt = -(-prompt_bytes // BYTES_PER_TOKEN) + images * IMAGE_TOKENS
        need = prompt + (ANSWER_TOKENS if answer is None else answer)
        size = self.least
        while size < need:
            size *= 2
        return min(size, self.most)
