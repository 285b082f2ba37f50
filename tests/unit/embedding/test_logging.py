"""What Python logs, warns of and lets escape ends up in the server's log."""

import logging
import threading
import warnings

from atlas_plugin.host.host import LogLevel
from atlas_plugin.host.host_logging import HostHandler
from tests.unit.embedding.host import Server


def test_names_and_levels(server: Server) -> None:
    server.fake.records.clear()
    logging.getLogger("atlas").warning("from %s", "us")
    logging.getLogger("mine.part").error("from a plugin")
    logging.getLogger("mine").log(25, "between")
    logging.getLogger("mine").critical("worst")
    logging.getLogger("mine").debug("too much")
    assert server.fake.records == [
        (LogLevel.WARN, "from us"),
        (LogLevel.ERROR, "mine.part: from a plugin"),
        (LogLevel.INFO, "mine: between"),
        (LogLevel.ERROR, "mine: worst"),
    ]


def test_a_message_that_cannot_be_formatted(server: Server) -> None:
    # Not through a logger: the test runner's own handler would raise.
    record = logging.LogRecord("mine", logging.INFO, __file__, 1, "%d", ("text",), None)
    HostHandler(server.fake).handle(record)
    assert "mine: cannot format the message '%d' of " in server.fake.log_text


def test_text_that_is_not_unicode(server: Server) -> None:
    logging.getLogger("mine").info("a \ud800 b")
    assert "mine: a ? b" in server.fake.log_text


def test_warnings_and_stray_exceptions(server: Server) -> None:
    class Stray:
        def __del__(self) -> None:
            raise ValueError("in __del__")

    def fail() -> None:
        raise ValueError("in a thread")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # The test runner records warnings by replacing this function; a server has the real one.
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("careful", stacklevel=1)
    Stray()
    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    text = server.fake.log_text
    assert "py.warnings: " in text
    assert "careful" in text
    assert "ValueError: in __del__" in text
    assert "thread worker ended by an exception" in text
    assert "ValueError: in a thread" in text
