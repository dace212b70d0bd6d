"""Writes a tiny llama model of random weights, which answers nonsense as any model server would serve it.

Run by `native_llama.py` with the Python of llama.cpp's own environment: `python llama_model.py FILE WINDOW`. Two layers
of 64 dimensions, a SentencePiece vocabulary of all 256 bytes and some words, a ChatML template.
"""

import sys
from pathlib import Path

import gguf  # type: ignore[import-not-found]  # of llama.cpp's environment, not of ours
import numpy as np

_LAYERS, _WIDTH, _HEADS, _FORWARD_WIDTH = 2, 64, 4, 128
_BOS, _EOS = 1, 2
_SEED = 6
# A word is merged from its letters one by one, so each of its beginnings is in the vocabulary too.
_WORDS = (" the", " harbour", " opens", " at", " six", " in", " of", " and", " documents", " answer", " first")
_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_model(path: Path, *, window_tokens: int) -> None:
    """Write the file; the same bytes every time."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("binnacle-tiny")
    writer.add_context_length(window_tokens)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FORWARD_WIDTH)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    size = _add_vocabulary(writer)
    for name, tensor in _tensors(size):
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: "gguf.GGUFWriter") -> int:
    """Three special tokens, every byte, every printable character, and words; the number of them."""
    kinds = gguf.TokenType
    rows = [("<unk>", 0.0, kinds.UNKNOWN), ("<s>", 0.0, kinds.CONTROL), ("</s>", 0.0, kinds.CONTROL)]
    rows += [(f"<0x{byte:02X}>", 0.0, kinds.BYTE) for byte in range(256)]
    beginnings = dict.fromkeys(word[:end] for word in _WORDS for end in range(2, len(word) + 1))
    rows += [(text.replace(" ", "▁"), -1.0, kinds.NORMAL) for text in beginnings]
    rows += [(chr(code), -10.0, kinds.NORMAL) for code in range(33, 127)]
    rows.append(("▁", -10.0, kinds.NORMAL))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([text.encode() for text, _, _ in rows])
    writer.add_token_scores([score for _, score, _ in rows])
    writer.add_token_types([kind for _, _, kind in rows])
    writer.add_vocab_size(len(rows))
    writer.add_bos_token_id(_BOS)
    writer.add_eos_token_id(_EOS)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(False)  # its only argument
    writer.add_chat_template(_TEMPLATE)
    return len(rows)


def _tensors(vocabulary: int) -> "list[tuple[str, np.ndarray]]":
    """By llama.cpp's names; the ends of generations are as likely as any token, so most answers run to their limit."""
    random = np.random.default_rng(_SEED)

    def weights(*shape: int) -> "np.ndarray":
        drawn = random.standard_normal(shape) / np.sqrt(shape[-1])
        return np.asarray(drawn, dtype=np.float32)

    ones = np.ones(_WIDTH, dtype=np.float32)
    tensors = [("token_embd.weight", weights(vocabulary, _WIDTH)), ("output_norm.weight", ones)]
    tensors.append(("output.weight", weights(vocabulary, _WIDTH)))
    for layer in range(_LAYERS):
        prefix = f"blk.{layer}"
        tensors += [(f"{prefix}.attn_norm.weight", ones), (f"{prefix}.ffn_norm.weight", ones)]
        tensors += [(f"{prefix}.attn_{name}.weight", weights(_WIDTH, _WIDTH)) for name in ("q", "k", "v", "output")]
        tensors += [(f"{prefix}.ffn_{name}.weight", weights(_FORWARD_WIDTH, _WIDTH)) for name in ("gate", "up")]
        tensors.append((f"{prefix}.ffn_down.weight", weights(_WIDTH, _FORWARD_WIDTH)))
    return tensors


if __name__ == "__main__":
    write_model(Path(sys.argv[1]), window_tokens=int(sys.argv[2]))
