"""The controller's word about an erasure: every version that learned from the customer is off every node.

It waits for the learner's own receipt, which follows the withdrawals, then for the record that takes withdrawn
versions out, then for the nodes. What was answered before a restart is known from the topic of receipts itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.rollout_records import NodeRecord, RolloutRecord, VersionRecord
from streams.erasures import Erasure, Receipt

PROCESS = "rollout"
LEARNER = "learn"


class Erasures:
    """Requests that this controller has not answered yet."""

    def __init__(self) -> None:
        self._asked: set[str] = set()
        self._learned: set[str] = set()
        self._answered: set[str] = set()

    def ask(self, erasure: Erasure) -> None:
        """Take in a request."""
        self._asked.add(erasure.erasure_id)

    def hear(self, receipt: Receipt) -> None:
        """Take in a receipt, the learner's or one of our own."""
        if receipt.complete and receipt.process == LEARNER:
            self._learned.add(receipt.erasure_id)
        if receipt.complete and receipt.process == PROCESS:
            self._answered.add(receipt.erasure_id)

    def due(
        self, record: RolloutRecord, versions: Mapping[str, VersionRecord], nodes: Sequence[NodeRecord]
    ) -> list[Receipt]:
        """Receipts that can be given now; each is given once."""
        ready = sorted((self._asked & self._learned) - self._answered)
        gone = {version.id for version in versions.values() if version.withdrawn}
        if not ready or gone & set(record.roles()):
            return []
        behind = any(node.generation < record.generation for node in nodes)
        if behind or any(node.ready(version) for node in nodes for version in gone):
            return []
        self._answered |= set(ready)
        detail: dict[str, int | str] = {"withdrawn": len(gone), "generation": record.generation, "nodes": len(nodes)}
        return [Receipt(erasure_id=name, process=PROCESS, complete=True, detail=detail) for name in ready]
