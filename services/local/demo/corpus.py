"""The demo's corpus: the Python language reference and library docstrings that ship inside every CPython.

Reads the running interpreter only; used by `course.py`.
"""

import importlib
import inspect
import types
from collections.abc import Iterator
from pydoc_data.topics import topics

from binnacle_client.answers import DocumentInput

# Pure-Python modules whose docstrings read as documentation; importing them has no effects.
MODULES = """
    abc argparse ast asyncio.locks asyncio.queues asyncio.streams asyncio.taskgroups asyncio.tasks
    asyncio.timeouts bisect calendar collections concurrent.futures contextlib copy csv dataclasses datetime dis
    enum fnmatch fractions functools getpass glob gzip hashlib heapq hmac inspect io ipaddress itertools json
    logging math numbers operator os os.path pathlib pickle pprint queue random re sched secrets shlex shutil
    signal statistics string struct subprocess sys tempfile textwrap threading time trace traceback types typing
    urllib.parse uuid warnings weakref zoneinfo
""".split()  # noqa: SIM905  # reads as text
_MIN_DOC_CHARS = 60


def documents() -> Iterator[DocumentInput]:
    """All documents: `topic/<name>` of the language reference, then `library/<module>`."""
    for name, text in sorted(topics.items()):
        yield DocumentInput(
            document_id=f"topic/{name}",
            content=text.encode(),
            title=text.partition("\n")[0].strip(),
            source_uri=f"https://docs.python.org/3/reference/#{name}",
            metadata={"part": "reference", "topic": name},
        )
    for name in MODULES:
        try:
            text = module_text(importlib.import_module(name))
        except ImportError:  # an interpreter built without tkinter, lzma, …
            continue
        yield DocumentInput(
            document_id=f"library/{name}",
            content=text.encode(),
            title=f"Module {name}",
            source_uri=f"https://docs.python.org/3/library/{name}.html",
            metadata={"part": "library", "topic": name},
        )


def module_text(module: types.ModuleType) -> str:
    """A module's docstring, then each public class, method and function with a docstring worth reading."""
    parts = [f"{module.__name__}\n{'*' * len(module.__name__)}\n\n{inspect.getdoc(module) or ''}"]
    for name, thing in sorted(vars(module).items()):
        if name.startswith("_") or not _belongs(thing, module):
            continue
        parts.extend(_described(f"{module.__name__}.{name}", thing))
        if inspect.isclass(thing):
            for method_name, method in sorted(vars(thing).items()):
                if not method_name.startswith("_") and inspect.isroutine(method):
                    parts.extend(_described(f"{module.__name__}.{name}.{method_name}", method))
    return "\n\n\n".join(parts)


def _belongs(thing: object, module: types.ModuleType) -> bool:
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return False
    home = (getattr(thing, "__module__", None) or module.__name__).lstrip("_")
    return home == module.__name__ or home.split(".")[0] == module.__name__.split(".")[0]


def _described(name: str, thing: object) -> Iterator[str]:
    doc = inspect.getdoc(thing) or ""
    if len(doc) >= _MIN_DOC_CHARS:
        heading = f"{name}{_signature(thing)}"
        yield f"{heading}\n{'=' * len(heading)}\n\n{doc}"


def _signature(thing: object) -> str:
    try:
        return str(inspect.signature(thing))  # type: ignore[arg-type]  # a TypeError is the answer for the others
    except (TypeError, ValueError):
        return ""
