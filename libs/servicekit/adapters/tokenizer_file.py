"""A model's tokenizer from its `tokenizer.json`, exact and on this machine. Used by embedders and engines."""

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as LibraryTokenizer

from servicekit.errors import NotReady

_SURROGATE = re.compile("[\ud800-\udfff]")


class FileTokenizer:
    """Without special tokens, cutting nothing; safe from any thread."""

    def __init__(self, definition: Path) -> None:
        self._tokenizer = load_definition(definition.expanduser())
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def count(self, text: str) -> int:
        """Tokens of `text`."""
        return len(self._tokenizer.encode(encodable(text), add_special_tokens=False))

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Character range of each token in order."""
        offsets: Sequence[tuple[int, int]] = self._tokenizer.encode(encodable(text), add_special_tokens=False).offsets
        return offsets

    def special_tokens(self) -> int:
        """How many tokens a text gets beside its own."""
        return int(self._tokenizer.num_special_tokens_to_add(is_pair=False))


def load_definition(path: Path) -> LibraryTokenizer:
    """Read a `tokenizer.json`.

    Raises:
        NotReady: no such file, or not one of the `tokenizers` library.
    """
    try:
        return LibraryTokenizer.from_file(str(path))
    except Exception as exc:  # the library raises bare Exception
        raise NotReady(
            f"the tokenizer definition {str(path)!r} cannot be read ({exc}): name a tokenizer.json of the model",
            reason="TOKENIZER_UNREADABLE",
        ) from exc


def encodable(text: str) -> str:
    """The text without what cannot cross into the library; one replacement character keeps offsets in place."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
