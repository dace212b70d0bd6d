"""Makes quoted text unable to look like the prompt around it. Pure; called by `prompt_template.py` for every chunk.

A chunk is whatever somebody wrote into a document. In a prompt it must neither open a turn of the conversation nor
pass for another document. What could is broken up by a blank or a mark, so that a reader still sees what stood there:

- marks that chat formats turn into special tokens wherever they stand (`<|…|>`, `[INST]`, `<start_of_turn>` …),
- lines that begin like a turn written out (`User:`),
- lines that begin with a number in brackets, as the headings of documents in a prompt do (`[2] Title`).

Citation markers within a line are left alone: they are no structure, and lists in code look the same.
"""

import re
from functools import lru_cache

_SPECIAL_TOKEN = re.compile(
    r"<(?=[|\uff5c])"
    r"|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|start_of_image|image)>)"
    r"|<(?=</?SYS>>)|<(?=/?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\])"
)
# Both begin with the end of the line before, for which a text can be searched many times faster than for `^`.
_TURN = re.compile(
    r"\n(?=[ \t]*(?:#{1,6}[ \t]*)?(?:system|user|assistant|human|instruction|response)[ \t]*:)", re.IGNORECASE
)
_HEADING = re.compile(r"\n([ \t]*)\[(\d+)\](?=[ \t])")
_OTHER_ENDS = "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_LINE_END = re.compile(rf"\r\n?|[{_OTHER_ENDS}]")


# A prompt is rendered more than once while it is packed.
@lru_cache(maxsize=256)
def quoted(text: str) -> str:
    """The text as it may stand in a prompt, on lines of its own."""
    if any(end in text for end in _OTHER_ENDS):
        text = _LINE_END.sub("\n", text)
    if "<" in text or "[" in text:
        text = _SPECIAL_TOKEN.sub(lambda mark: f"{mark[0]} ", text)
    text = _TURN.sub("\n> ", f"\n{text}")
    return _HEADING.sub(r"\n\1(\2)", text)[1:]


@lru_cache(maxsize=1024)
def quoted_line(text: str) -> str:
    """The same on one line, which it does not leave."""
    return " ".join(quoted(" ".join(text.split())).split())
