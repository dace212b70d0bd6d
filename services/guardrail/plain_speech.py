"""Takes from a text what says nothing about its tone: handles, links, markup, letters drawn out.

Pure; the linear model of `toxicity` reads the result, in service and in training.
"""

import html
import re

# Each begins with a fixed character and runs over one class of characters: linear.
_LINK = re.compile(r"https?://\S+|www\.\S+")
_HANDLE = re.compile(r"(?<!\w)@\w+:?|\bRT\b")
_DRAWN_OUT = re.compile(r"([a-z!?.])\1{2,}", re.IGNORECASE)  # a run is matched whole, once: linear


def plain_speech(text: str) -> str:
    """Without handles, links and retweet marks; entities as characters; three or more of a letter as two."""
    spoken = html.unescape(text) if "&" in text else text
    if "@" in spoken or "RT" in spoken:
        spoken = _HANDLE.sub(" ", spoken)
    return _DRAWN_OUT.sub(r"\1\1", _LINK.sub(" ", spoken)).replace("#", " ")
