"""A language model of some tens of thousands of random weights, as a GGUF file.

It writes nonsense, but a real inference server loads it, tokenizes with it and samples from it.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import random
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONTEXT = 2048
"""Tokens."""

_EMBEDDING, _HEADS, _INNER, _LAYERS = 32, 4, 64, 1
_ALIGNMENT = 32
_U32, _I32, _F32, _STRING, _ARRAY = 4, 5, 6, 8, 9
_FLOATS = 0  # the type of a tensor

# A token for each byte, so that every text can be written.
_SPECIAL = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
_BYTES = [(f"<0x{byte:02X}>", 6) for byte in range(256)]
_VOCABULARY = [*_SPECIAL, *_BYTES, ("\u2581", 1)]


def write_tiny_model(path: Path) -> None:
    """Write it; the same weights each time."""
    tensors = _tensors()
    header = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(_FACTS))]
    header += [_fact(name, kind, value) for name, (kind, value) in _FACTS.items()]
    offset = 0
    data: list[bytes] = []
    for name, shape in tensors.items():
        header.append(_text(name) + struct.pack("<I", len(shape)))
        header.append(struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", _FLOATS, offset))
        weights = _padded(_weights(name, shape))
        data.append(weights)
        offset += len(weights)
    path.write_bytes(_padded(b"".join(header)) + b"".join(data))


def _tensors() -> dict[str, tuple[int, ...]]:
    square = (_EMBEDDING, _EMBEDDING)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (_EMBEDDING, len(_VOCABULARY))}
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        shapes |= {
            f"{block}.attn_norm.weight": (_EMBEDDING,),
            f"{block}.attn_q.weight": square,
            f"{block}.attn_k.weight": square,
            f"{block}.attn_v.weight": square,
            f"{block}.attn_output.weight": square,
            f"{block}.ffn_norm.weight": (_EMBEDDING,),
            f"{block}.ffn_gate.weight": (_EMBEDDING, _INNER),
            f"{block}.ffn_up.weight": (_EMBEDDING, _INNER),
            f"{block}.ffn_down.weight": (_INNER, _EMBEDDING),
        }
    return shapes | {
        "output_norm.weight": (_EMBEDDING,),
        "output.weight": (_EMBEDDING, len(_VOCABULARY)),
    }


def _weights(name: str, shape: tuple[int, ...]) -> bytes:
    count = 1
    for size in shape:
        count *= size
    if "norm" in name:
        return struct.pack(f"<{count}f", *([1.0] * count))
    chance = random.Random(name)
    return struct.pack(f"<{count}f", *(chance.gauss(0, 0.1) for _ in range(count)))


_FACTS: Mapping[str, tuple[int, Any]] = {
    "general.architecture": (_STRING, "llama"),
    "general.name": (_STRING, "tiny"),
    "general.alignment": (_U32, _ALIGNMENT),
    "llama.vocab_size": (_U32, len(_VOCABULARY)),
    "llama.context_length": (_U32, CONTEXT),
    "llama.embedding_length": (_U32, _EMBEDDING),
    "llama.block_count": (_U32, _LAYERS),
    "llama.feed_forward_length": (_U32, _INNER),
    "llama.rope.dimension_count": (_U32, _EMBEDDING // _HEADS),
    "llama.attention.head_count": (_U32, _HEADS),
    "llama.attention.head_count_kv": (_U32, _HEADS),
    "llama.attention.layer_norm_rms_epsilon": (_F32, 1e-5),
    "tokenizer.ggml.model": (_STRING, "llama"),
    "tokenizer.ggml.tokens": (_ARRAY, (_STRING, [name for name, _ in _VOCABULARY])),
    "tokenizer.ggml.scores": (_ARRAY, (_F32, [0.0] * len(_VOCABULARY))),
    "tokenizer.ggml.token_type": (_ARRAY, (_I32, [kind for _, kind in _VOCABULARY])),
    "tokenizer.ggml.unknown_token_id": (_U32, 0),
    "tokenizer.ggml.bos_token_id": (_U32, 1),
    "tokenizer.ggml.eos_token_id": (_U32, 2),
}


def _fact(name: str, kind: int, value: Any) -> bytes:
    return _text(name) + struct.pack("<I", kind) + _value(kind, value)


def _value(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _text(value)
    if kind == _ARRAY:
        of, items = value
        return struct.pack("<IQ", of, len(items)) + b"".join(_value(of, item) for item in items)
    return struct.pack({_U32: "<I", _I32: "<i", _F32: "<f"}[kind], value)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(raw: bytes) -> bytes:
    return raw + b"\0" * (-len(raw) % _ALIGNMENT)
