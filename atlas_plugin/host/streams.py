"""The streamed answers that are under way, by the number that the server knows them by."""

import itertools
from collections.abc import Iterable, Iterator


class Streams:
    """A table of iterators. Any thread may call the methods, `next` one at a time for each stream."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, Iterator[bytes | str]] = {}
        self._stopped = False

    def open(self, chunks: Iterable[bytes | str]) -> int:
        """Take an iterable in; the number given back is never used again."""
        number = next(self._numbers)
        self._open[number] = iter(chunks)
        return number

    def next(self, number: int) -> bytes | None:
        """The next piece; None at the end or once stopped.

        Raises KeyError for an unknown number, TypeError for a piece that is neither bytes nor text, and what
        the iterator raises.
        """
        if self._stopped:
            return None
        try:
            piece = next(self._open[number])
        except StopIteration:
            return None
        if isinstance(piece, str):
            return piece.encode()
        if not isinstance(piece, bytes):
            raise TypeError(f"a stream yielded {type(piece).__name__}: yield bytes or str")
        return piece

    def close(self, number: int) -> None:
        """Close the iterator; a number that is unknown or already closed does nothing."""
        close = getattr(self._open.pop(number, None), "close", None)
        if close is not None:
            close()

    def stop(self) -> list[BaseException]:
        """End all streams; gives what their clean-up raised."""
        self._stopped = True
        errors: list[BaseException] = []
        for number, iterator in list(self._open.items()):
            # One that another thread is running cannot be closed from here, and ends when it yields.
            if not getattr(iterator, "gi_running", False):
                try:
                    self.close(number)
                except BaseException as error:
                    errors.append(error)
        return errors
