"""A stream worker whose commits the broker refuses now and then: `python -m tests.faulty_worker SHARE SEED`.

Half of the refused commits never reach the broker, the others were stored and the answer lies. Codes: UNKNOWN_MEMBER
25, ILLEGAL_GENERATION 22, NOT_COORDINATOR 16, REBALANCE_IN_PROGRESS 27.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetCommitRequest

from services.cli import main as driftline

CODES = (25, 22, 16, 27)


def refuse_commits(share: float, rng: random.Random) -> None:
    """Make this process's group coordinator answer a share of all commits with an error."""
    send = GroupCoordinator._send_req

    async def sometimes(self: Any, request: Any) -> Any:
        if not isinstance(request, OffsetCommitRequest) or rng.random() >= share:
            return await send(self, request)
        if rng.random() < 0.5:
            await send(self, request)
        code = rng.choice(CODES)
        asked = request._topics
        return SimpleNamespace(topics=[(topic, [(place[0], code) for place in places]) for topic, places in asked])

    GroupCoordinator._send_req = sometimes


def main(argv: Sequence[str]) -> int:
    """Run `driftline clean` with commits that fail."""
    refuse_commits(float(argv[0]), random.Random(int(argv[1]) + os.getpid()))
    return driftline(["clean"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
