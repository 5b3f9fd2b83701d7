"""Many sums at once in one long integer: a hidden layer without arrays, whose every call costs more than its sums.

An integer holds numbers side by side, `BITS` each; adding two integers adds all of them. A negative number borrows from
the one above it, so `OFFSET` is added once before they are told apart: then the highest bit of each says its sign. Of
numbers that are not negative the sum is the remainder by `2**BITS - 1`, as the sum of digits is by nine.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

BITS = 24
"""Of one number; 1,024 is a nat, so sums of thousands of nats have room."""
UNIT = 1024
MOST = 2 ** (BITS - 1) // 16 - 1
"""The largest number that is packed: sixteen of them cannot leave their place."""
_BYTES = BITS // 8
_ALL = (1 << BITS) - 1
Array = np.ndarray[Any, Any]


def packed(rows: Array) -> tuple[int, ...]:
    """Each row of nats, (rows, numbers), as one integer."""
    numbers = np.clip(np.rint(rows * UNIT), -MOST, MOST).astype("<i4") + (MOST + 1)
    body = np.ascontiguousarray(numbers).view(np.uint8).reshape(*numbers.shape, 4)[:, :, :_BYTES]
    taken = _repeated(MOST + 1, rows.shape[1])
    return tuple(int.from_bytes(row.tobytes(), "little") - taken for row in body)


def _repeated(number: int, count: int) -> int:
    total = 0
    for i in range(count):
        total |= number << BITS * i
    return total


class Output(NamedTuple):
    """The last step of a network whose hidden numbers are packed: those that speak for, and then those against."""

    offset: int
    first: int
    """Mask of the numbers that speak for."""
    behind: int
    """Where the others begin, in bits."""

    def nats(self, total: int) -> int:
        """What the hidden numbers say together, in 1/`UNIT` nats; one below 0 says nothing."""
        offset = self.offset
        total += offset
        positive = total & offset
        total &= positive - (positive >> (BITS - 1))
        return (total & self.first) % _ALL - (total >> self.behind) % _ALL


def output(speaking_for: int, count: int) -> Output:
    """The last step over `count` numbers, the first of which speak for."""
    return Output(_repeated(1 << BITS - 1, count), (1 << BITS * speaking_for) - 1, BITS * speaking_for)
