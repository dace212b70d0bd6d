"""Runs a service as a process: `run(Settings, build)` is all that `services.*.__main__` does.

Exit status: 0 after SIGTERM or SIGINT, 1 after a failure, 2 for settings that do not hold.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

import structlog
import uvloop

from servicekit.errors import InvalidRequest
from servicekit.runtime.declaration import BackgroundTask, HttpApp, RpcService, Service
from servicekit.runtime.lifecycle import Build, serve
from servicekit.runtime.memory import bound_arenas, freeze
from servicekit.runtime.settings import SettingsError, SettingsT, describe_settings, load_settings
from servicekit.runtime.stack import Stack
from servicekit.telemetry.logging import configure_logging
from servicekit.telemetry.tracing import configure_tracing

__all__ = ["BackgroundTask", "HttpApp", "RpcService", "Service", "Stack", "run"]

EXIT_FAILED = 1
EXIT_SETTINGS = 2

log = structlog.get_logger()


def run(settings_type: type[SettingsT], build: Build[SettingsT]) -> None:
    """Run the service until a signal ends it; does not return."""
    sys.exit(main(settings_type, build, sys.argv[1:]))


def main(settings_type: type[SettingsT], build: Build[SettingsT], arguments: Sequence[str]) -> int:
    """Run the service and return its exit status; `--help` explains the settings."""
    if arguments:
        asked = arguments[0] in ("-h", "--help")
        print(describe_settings(settings_type), file=sys.stdout if asked else sys.stderr)  # a terminal's
        return 0 if asked else EXIT_SETTINGS
    try:
        settings = load_settings(settings_type)
    except SettingsError as exc:
        print(exc, file=sys.stderr)  # noqa: T201  # one line per fault, for whoever starts the process
        return EXIT_SETTINGS
    bound_arenas()
    configure_logging(service=settings.service_name(), level=settings.log_level, log_format=settings.log_format)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # a gRPC call costs less on it
            return runner.run(_until_signalled(settings, build))
    except InvalidRequest as exc:
        print(exc.message, file=sys.stderr)  # noqa: T201  # as above
        return EXIT_SETTINGS


async def _until_signalled(settings: SettingsT, build: Build[SettingsT]) -> int:
    stopping = asyncio.Event()
    _on_signals(stopping)
    flush = configure_tracing(
        service=settings.service_name(), instance=str(os.getpid()), otlp_endpoint=settings.otlp_endpoint
    )
    try:
        failure = await serve(settings, _freezing(build), stopping=stopping)
    finally:
        await asyncio.to_thread(flush)
    if isinstance(failure, InvalidRequest):
        return EXIT_SETTINGS
    return 0 if failure is None else EXIT_FAILED


def _freezing(build: Build[SettingsT]) -> Build[SettingsT]:
    async def build_and_freeze(settings: SettingsT, stack: Stack) -> Service:
        service = await build(settings, stack)
        freeze()
        return service

    return build_and_freeze


def _on_signals(stopping: asyncio.Event) -> None:
    """The first signal drains; a person's second Ctrl-C ends the process at once.

    A second SIGTERM changes nothing: a supervisor sends one after the terminal has sent SIGINT to the whole group.
    """
    loop = asyncio.get_running_loop()
    interrupts = 0

    def stop(number: signal.Signals) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            os._exit(128 + number)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
