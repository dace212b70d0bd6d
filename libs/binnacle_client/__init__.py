"""The SDK of Binnacle: a typed asynchronous client, and the `binnacle` command.

async with open_client(Connection.from_environment()) as binnacle:
async for event in binnacle.stream("What does `nonlocal` do?"):
...
"""

from binnacle_client.answers import Answer, AnswerEvent, AnswerText, Citation, QuestionOptions
from binnacle_client.client import Binnacle, open_client
from binnacle_client.connection import Connection

__all__ = [
    "Answer",
    "AnswerEvent",
    "AnswerText",
    "Binnacle",
    "Citation",
    "Connection",
    "QuestionOptions",
    "open_client",
]
