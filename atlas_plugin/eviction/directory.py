"""What the policy knows of entries, in the tier or evicted from it (ghosts): one row each, in columns."""

from array import array

GHOST, CACHED = 0, 1
NO_CLASS = -1
UNTRACKED = -1


class Directory:
    """Rows of known entries.

    Columns of numbers, as hundreds of thousands of objects would take several times the memory and make the
    garbage collector's pauses long. They are public, because the policy's loop over touches is faster so.
    """

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        self.keys = array("Q")
        self.last = array("q")
        """The clock at the last touch."""
        self.touches = array("B")
        self.classes = array("b")
        """The class of the life table that the entry is counted in, or NO_CLASS."""
        self.cohorts = array("q")
        """The number of the cohort of the last touch, or UNTRACKED."""
        self.coins = array("d")
        """The number in [0, 1) of the conversation that made the entry: see `Grace`."""
        self.branches = array("B")
        """How many new entries have continued this one."""
        self.cached = array("B")
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, key: int, coin: float) -> int:
        """Make a row for a key that has none."""
        if self._free:
            row = self._free.pop()
            self.keys[row], self.coins[row] = key, coin
            self.touches[row] = self.branches[row] = 0
            self.classes[row], self.cohorts[row], self.cached[row] = NO_CLASS, UNTRACKED, GHOST
        else:
            row = len(self.keys)
            self.keys.append(key)
            self.coins.append(coin)
            self.last.append(0)
            self.touches.append(0)
            self.branches.append(0)
            self.classes.append(NO_CLASS)
            self.cohorts.append(UNTRACKED)
            self.cached.append(GHOST)
        self.rows[key] = row
        return row

    def forget(self, row: int) -> None:
        """Free the row for another key."""
        del self.rows[self.keys[row]]
        self.cohorts[row] = UNTRACKED
        self._free.append(row)
