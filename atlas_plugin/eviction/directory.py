"""What the policy knows of entries, in the layer or gone from it: one row each, in columns."""

from array import array

GHOST, CACHED = 0, 1
NO_CLASS = -1
UNTRACKED = -1


class Directory:
    """Rows of known entries.

    Columns of numbers, as hundreds of thousands of objects would take several times the memory and make the
    garbage collector's pauses long. They are public, for the loop over touches.
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
        """The coin of the conversation that made the entry."""
        self.branches = array("B")
        """How often something new was put under the entry."""
        self.cached = array("B")
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, key: int, coin: float) -> int:
        """A row for a key that has none."""
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
        """Give the row back, for another key."""
        del self.rows[self.keys[row]]
        self.cohorts[row] = UNTRACKED
        self._free.append(row)
