"""Sends Python's logging, warnings and exceptions that nobody caught to the server's log."""

import logging
import sys
import threading
from contextlib import suppress

from atlas_plugin.host.host import Host, LogLevel

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}

log = logging.getLogger("atlas")


class HostHandler(logging.Handler):
    """Writes records to the host's log: those of "atlas" bare, others after their logger's name."""

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. Never raises: a record that cannot be formatted is reported in its place."""
        try:
            text = self.format(record)
        except Exception as error:
            text = f"cannot format the message {record.msg!r} of {record.pathname}:{record.lineno}: {error!r}"
        if record.name != "atlas":
            text = f"{record.name}: {text}"
        # Where the log itself fails, there is nowhere left to say so.
        with suppress(Exception):
            self._host.log(_host_level(record.levelno), text)


def set_level(host: Host) -> None:
    """Have Python drop what the server would not log. Any thread."""
    logging.getLogger().setLevel(_LEVELS[host.status()["in_effect"]["log_level"]])


def install(host: Host) -> None:
    """Route everything to `host`, as far as its settings ask for it.

    The process has one log. Of several servers in it the one that started last decides, and it may have
    stopped since.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, HostHandler)]:
        root.removeHandler(handler)
    root.addHandler(HostHandler(host))
    set_level(host)
    logging.captureWarnings(True)
    threading.excepthook = _log_thread_exception
    sys.unraisablehook = _log_unraisable


def _host_level(level: int) -> LogLevel:
    if level >= logging.ERROR:
        return LogLevel.ERROR
    if level >= logging.WARNING:
        return LogLevel.WARN
    return LogLevel.INFO if level >= logging.INFO else LogLevel.DEBUG


def _log_thread_exception(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else "unknown"
        log.error("thread %s ended by an exception", name, exc_info=args.exc_value)


def _log_unraisable(args: "sys.UnraisableHookArgs") -> None:
    log.error("%s: %r", args.err_msg or "Exception ignored in", args.object, exc_info=args.exc_value)
