"""The demo's questions, each with the topics that answer it, and the questions that shift.

Data only; `course.py` asks them, `summary.py` counts how many answers cite one of the expected topics.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DemoQuestion:
    """A question and the topics of the language reference that hold its answer (several repeat each other)."""

    text: str
    topics: frozenset[str]


def _question(text: str, topics: str) -> DemoQuestion:
    return DemoQuestion(text, frozenset(topics.split()))


QUESTIONS = (
    _question("What does the nonlocal statement do?", "nonlocal"),
    _question("Which methods of a context manager does the with statement invoke?", "with compound context-managers"),
    _question("When is the else clause of a for loop executed?", "for compound break else"),
    _question("What happens when an assert statement fails?", "assert"),
    _question("When are default parameter values evaluated in a function definition?", "function compound"),
    _question("How can the exception that is being handled be re-raised?", "raise"),
    _question("What does raise with a from clause do?", "raise"),
    _question("What does a lambda expression create?", "lambda"),
    _question("Which objects are considered false in a truth value test?", "truth booleans"),
    _question("What is the pass statement good for?", "pass"),
    _question("What does the continue statement do inside a loop?", "continue"),
    _question("What does deleting a name with del do?", "del"),
    _question("What does the global statement mean for a name?", "global"),
    _question("How does an augmented assignment differ from a normal assignment?", "augassign assignment"),
    _question("Which operators bind more tightly than others?", "operator-summary"),
    _question("Can comparisons be chained arbitrarily?", "comparisons"),
    _question("How do the shifting operators work?", "shifting"),
    _question("What does the power operator return for a negative exponent?", "power"),
    _question("What does a slicing select from a sequence?", "slicings sequence-types typesseq types"),
    _question("What does a dictionary display yield?", "dict"),
    _question("Which two steps does the basic import statement execute?", "import"),
    _question("How is a name resolved in a nested code block?", "naming execmodel"),
    _question("What does str.split do when the separator is not given?", "string-methods typesseq"),
    _question("What does str.zfill return?", "string-methods typesseq"),
    _question("How is a comma used as a thousands separator in a format specification?", "formatstrings"),
    _question("How do I set a breakpoint with a condition in the debugger?", "debugger"),
    _question("When is the __del__ method of an instance called?", "customization specialnames types"),
    _question("When is __getattr__ called for an attribute access?", "attribute-access specialnames"),
    _question("What is an imaginary literal?", "imaginary numbers"),
    _question("How are hexadecimal integer literals written?", "integers numbers"),
    _question("What does the prefix r do to a string literal?", "strings"),
    _question("Which loop does the break statement terminate?", "break"),
    _question("What happens if return leaves a try statement with a finally clause?", "return try compound"),
    _question("What does an await expression do to a coroutine?", "await async types typesmethods specialnames"),
    _question("Where may async for and async with statements be used?", "async compound"),
    _question("How are private names in a class definition mangled?", "atom-identifiers id-classes"),
    _question("What does the setdefault method of a dictionary do?", "typesmapping"),
    _question("Is the sort method of a list guaranteed to be stable?", "typesseq-mutable typesseq"),
    _question("What does the unary invert operator yield?", "unary"),
    _question("When is the finally clause of a try statement executed?", "try compound"),
)

_SHIFTED_SUBJECTS = (
    "the invoice for my last order of garden furniture",
    "the refund for the train tickets that I returned in spring",
    "the opening hours of your branch near the old harbour",
    "the delivery of the washing machine that was promised for Tuesday",
    "the warranty of the coffee grinder that my sister gave me",
    "the booking of two rooms with a view of the lake in August",
    "the loyalty points that vanished from my customer card",
    "the vegetarian menu for the anniversary of my grandparents",
    "the parking permit for visitors of the concert hall",
    "the vaccination that my dog needs for a journey to Norway",
    "the insurance of the rental car with the scratched door",
    "the subscription to the newspaper that I cancelled twice",
    "the piano lessons for beginners on Saturday mornings",
    "the tomatoes on my balcony that get brown spots",
    "the recipe for the lemon cake that your kitchen served",
    "the swimming course for children who are afraid of water",
    "the leaking tap that the plumber was supposed to mend",
    "the passport photographs that the authority rejected",
    "the broken zip of the tent that I bought for the summer",
    "the gift voucher that ran out while I was in hospital",
    "the night bus that no longer stops at the market square",
    "the heating that stays cold although the bill was paid",
    "the lost umbrella with a wooden handle on the ferry",
    "the tasting of cheese and wine that was moved to May",
)
SHIFTED_QUESTIONS = tuple(
    f"Dear team, I am writing to you for the third time about {subject}, because nobody at the counter, on the "
    f"telephone or in your online chat could tell me anything useful, and every colleague of yours promised that "
    f"somebody would call me back within two days, which has of course never happened; could you please look into "
    f"{subject} yourself, tell me what exactly went wrong, and let me know by when I may count on a solution?"
    for subject in _SHIFTED_SUBJECTS
)
