"""What a policy learned, as bytes that outlive a restart.

    magic, 8 bytes | version, u32 | blake2b of what follows, 16 bytes | size of the JSON, u32 | JSON | columns

Numbers are little endian. A column holds one number for each row of the directory.
"""

import sys
from array import array
from hashlib import blake2b
from struct import Struct
from typing import Any

from atlas_plugin import json_text
from atlas_plugin.eviction.directory import UNTRACKED, Directory
from atlas_plugin.eviction.plan import BANDS, Flows
from atlas_plugin.eviction.survival import BUCKETS, CLASSES, Cohort, LifeTable

MAGIC = b"ATLASEVP"
VERSION = 1
"""Changes with the format, and with what classes, buckets and bands mean."""
_HEADER = Struct("<8sI16s")
_SIZE = Struct("<I")
_COLUMNS = ("keys", "last", "touches", "classes", "cohorts", "coins", "branches")


class StateError(ValueError):
    """A state that cannot be used; begin without one."""


def dump(tally: dict[str, Any], directory: Directory, table: LifeTable, flows: Flows) -> bytes:
    """All of it as bytes; `load` takes them apart."""
    document = {
        "tally": tally,
        "rows": len(directory.keys),
        "hits": table.hits,
        "entered": table.entered,
        "time": table.time,
        "first": table.first,
        "cohorts": [[cohort.end, cohort.reached, cohort.remaining, cohort.ended] for cohort in table.cohorts],
        "sizes": flows.sizes,
        "savings": flows.savings,
    }
    text = json_text.encode(document)
    body = b"".join(
        [_SIZE.pack(len(text)), text, *(_little(getattr(directory, name)).tobytes() for name in _COLUMNS)]
    )
    return _HEADER.pack(MAGIC, VERSION, _digest(body)) + body


def load(data: bytes) -> tuple[dict[str, Any], Directory, LifeTable, Flows]:
    """What `dump` was given, with all entries as ghosts. Raises StateError."""
    if len(data) < _HEADER.size + _SIZE.size or not data.startswith(MAGIC):
        raise StateError("this is no state of an eviction policy")
    _, version, digest = _HEADER.unpack_from(data)
    if version != VERSION:
        raise StateError(f"the state has version {version}; this ATLAS reads version {VERSION}")
    body = data[_HEADER.size :]
    if digest != _digest(body):
        raise StateError("the state is damaged: its checksum is wrong")
    try:
        (size,) = _SIZE.unpack_from(body)
        document = json_text.decode(body[_SIZE.size : _SIZE.size + size])
        table, flows = _table(document), _flows(document)
        directory = _directory(memoryview(body)[_SIZE.size + size :], document["rows"], table)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise StateError(f"the state is not what this ATLAS writes: {error!r}") from error
    return document["tally"], directory, table, flows


def _table(document: dict[str, Any]) -> LifeTable:
    table = LifeTable()
    table.hits = _numbers(document["hits"], CLASSES * BUCKETS)
    table.entered = _numbers(document["entered"], CLASSES * BUCKETS)
    table.time, table.first = float(document["time"]), int(document["first"])
    table.cohorts.clear()
    for end, reached, remaining, ended in document["cohorts"]:
        cohort = Cohort()
        cohort.end, cohort.reached = end, reached
        cohort.remaining = _numbers(remaining, CLASSES)
        cohort.ended = _numbers(ended, CLASSES * BUCKETS)
        table.cohorts.append(cohort)
    return table


def _flows(document: dict[str, Any]) -> Flows:
    flows = Flows()
    flows.sizes = _numbers(document["sizes"], BANDS * CLASSES)
    flows.savings = _numbers(document["savings"], BANDS * CLASSES)
    return flows


def _directory(data: memoryview, rows: int, table: LifeTable) -> Directory:
    stored = Directory()
    for name in _COLUMNS:
        column = getattr(stored, name)
        size = rows * column.itemsize
        column.frombytes(data[:size])
        data = data[size:]
        setattr(stored, name, _little(column))
    if len(data) or len(stored.branches) != rows:
        raise ValueError("columns of another size")
    directory = Directory()
    for row in range(rows):
        cohort = stored.cohorts[row]
        if cohort != UNTRACKED:
            new = directory.add(stored.keys[row], stored.coins[row])
            for name in ("last", "touches", "classes", "cohorts", "branches"):
                getattr(directory, name)[new] = getattr(stored, name)[row]
            table.cohorts[cohort - table.first].members.append(new)
    return directory


def _numbers(values: Any, count: int) -> Any:
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"not {count} numbers")
    return values


def _little(column: Any) -> Any:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
