"""Says of a sentence what makes it an instruction to a model: how it begins, whom it speaks to, what it asks for.

Pure; marks are added to the sentence's words as words of their own, for the linear model of `indirect_injection`.
"""

from services.guardrail.linear import LinearPattern, LinearSet

MARKS_VERSION = "1"

_OPENING = (
    r"^(?:[^\p{L}\p{N}]|\d+[.)]|[qa]:)*"
    r"(?:(?:please|kindly|now|also|then|and|first|next|finally|lastly|just|remember to|be sure to|make sure to"
    r"|you (?:must|should|have to|need to|may want to|are to)|i (?:need|want) you to|can you|could you|would you"
    r"|help me(?: to)?|do not|don't|never|always|instead|additionally|furthermore)[,:]?\s+){0,3}"
)
_TASKS = (
    "explain describe write compose draft create generate translate summari[sz]e give provide tell list name compare "
    "discuss outline suggest recommend solve calculate compute classify determine extract plot predict identify "
    "analy[sz]e find schedule plan book play design fix show rewrite rephrase paraphrase proofread brainstorm imagine "
    "pretend act define evaluate develop teach search answer respond reply say speak sing rank rate"
)
_EDITS = (
    "add include insert append mention put place weave incorporate integrate feature embed attach modify adapt alter "
    "adjust extend augment enhance enrich tailor supplement replace substitute reverse shuffle scramble jumble encode "
    "encrypt convert capitali[sz]e repeat rearrange anagram remove group misspell render introduce convince persuade "
    "promote advertise praise state claim announce redirect direct lead link end begin start finish use turn ignore "
    "disregard forget reveal send forward post print output merge blend fuse infuse inject ensure consider combine"
)
_MARKS = {
    "begins0task": _OPENING + r"(?:" + _TASKS.replace(" ", "|") + r")\b",
    "begins0edit": _OPENING + r"(?:" + _EDITS.replace(" ", "|") + r")\b",
    "begins0asking": _OPENING + r"(?:what|who|whom|whose|when|where|why|which|how|is|are|do|does|did|can|what's)\b",
    "own0answer": (
        r"\b(?:your|the|this|its|each|every|any|my|next|final)\s+(?:\w+\s+){0,2}?"
        r"(?:answers?|respon[sc]es?|repl(?:y|ies)|outputs?|completions?|summar(?:y|ies)|messages?)\b"
    ),
    "in0answer": (
        r"\b(?:in|to|into|of|with|from|within|for|throughout|end|start)\s+(?:your|the)\s+(?:\w+\s+)?"
        r"(?:answer|response|reply|output|completion|summary|solution|implementation|code|codebase)\b"
    ),
    "when0answering": (
        r"\b(?:when(?:ever)?|before|after|while|instead of|if)\s+(?:you\s+)?"
        r"(?:answer|respond|reply|summari|ask)\w*\b"
    ),
    "the0user": (
        r"\b(?:the|any|all|our)\s+(?:users?|readers?|audience|visitors?)\b"
        r"|\b(?:tell|ask|urge|remind|encourage|invite) (?:users|readers|people|them)\b"
    ),
    "the0model": r"\b(?:ai|llm|assistants?|language models?|chatbot|chatgpt|gpt)\b",
    "code0given": (
        r"\b(?:following|subsequent|below|this|next)\s+(?:\w+\s+)?"
        r"(?:code|snippet|lines?|block|fragment|excerpt|function|script|command)\b"
    ),
    "speaker": r"\b(?:i|i'm|i'll|i've|we|we've|we'll|me|us|our|my)\b",
    "reader": r"\byou(?:r|rs|'re|'ll|'ve)?\b",
    "politely": r"\b(?:please|thanks|thank you|kindly|sorry|regards)\b",
    "question": r"\?[\s\"')\]]*$",
    "ends0colon": r":\s*$",
    "quotes": r"[\"“”'][^\"“”']{8,}[\"“”']",
    "amount": r"[$€£]\s?\d|\d{2,}",
    "many0words": r"(?:\S+\s+){25}",
    "few0words": r"^\s*\S+(?:\s+\S+){0,3}\s*$",
}
_FIRST = LinearPattern(_OPENING + r"([\p{L}']+)", ignore_case=True)
_SET = LinearSet(list(_MARKS.values()), ignore_case=True)
_NAMES = tuple(_MARKS)


def marked(sentence: str) -> str:
    """The sentence, and behind it its marks; of what it begins with, also the word itself."""
    marks = [f"x0{_NAMES[place]}" for place in _SET.matching(sentence)]
    first = next(iter(_FIRST.spans(sentence, group=1)), None)
    if first:
        marks.append(f"x0first{sentence[first.start : first.end].lower()}")
    return " \n ".join([sentence, *marks])
