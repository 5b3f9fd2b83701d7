"""What the learner tells others of its versions: records for the rollout, audit events, model cards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from learner.head_check import HeadResult, check
from learner.publish import Judged, Versions
from learner.records import Records
from services.adapters import records_folder
from services.rollout_records import VersionRecord, encode
from services.stored import Stored
from services.topic_feed import send
from streams.topics import ADAPTER_EVENTS, VERSIONS

if TYPE_CHECKING:
    from confluent_kafka import Producer

    from services.runtime import Runtime
    from services.settings import Settings


class LearnedVersions:
    """Speaks for one line; `epoch` is its owner's."""

    def __init__(
        self, settings: Settings, runtime: Runtime, producer: Producer, versions: Versions, stored: Stored, *,
        epoch: int, wall: Callable[[], float],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._runtime = runtime
        self._producer = producer
        self._versions = versions
        self._stored = stored
        self._epoch = epoch
        self._wall = wall

    def record(
        self, version: str, decision: str, gated_against: str, *,
        fresh: tuple[float, float] | None = None, withdrawn: bool = False,
    ) -> None:  # fmt: skip
        """Send a version's record; sending it again is harmless.

        `fresh`: when its samples came, first and last; a manifest, which cuts floats, knows it to ten seconds only.
        """
        manifest = self._versions.registry.manifest(version)
        fresh_from, fresh_to = fresh or (manifest.training.fresh_from, manifest.training.fresh_to)
        record = VersionRecord(
            id=version,
            digest=manifest.digest,
            parent=manifest.parent,
            size=sum(file.size for file in manifest.files),
            fresh_from=fresh_from,
            fresh_to=fresh_to,
            epoch=self._epoch,
            decision=decision,
            gated_against=gated_against,
            withdrawn=withdrawn,
        )
        send(self._producer, self._settings.kafka.prefix + VERSIONS, version, encode(record))

    def withdrawn(self, version: str, gated_against: str) -> None:
        """A version holds what a customer wanted forgotten: its record says so, and its heads are deleted."""
        Records(records_folder(self._settings)).drop_heads(version)
        self.record(version, "withdrawn", gated_against, withdrawn=True)

    def judged(self, judged: Judged) -> None:
        """Send what became of a candidate; of a version also its record, before its card takes time."""
        candidate, decision, version = judged.candidate, judged.decision, judged.version
        if version is not None:
            fresh = (candidate.fresh_from, candidate.fresh_to)
            self.record(version, decision.verdict, judged.gated_against, fresh=fresh)
        event = {"promote": "published", "refuse": "refused", "abstain": "abstained"}[decision.verdict]
        self._audit({
            "event": event, "version": version or candidate.name, "line": candidate.line, "parent": candidate.parent,
            "step": candidate.steps[1], "decision": decision.verdict, "why": decision.why,
            "gated_against": judged.gated_against, "examples": judged.heldout.examples,
            "nll": judged.heldout.nll, "base_nll": judged.heldout.base_nll, "fresh_to": candidate.fresh_to,
            "at": self._wall(),
        })  # fmt: skip
        if version is not None:
            self._card(version, judged)

    def _card(self, version: str, judged: Judged) -> None:
        """Write the version's record and model card; a full disk costs the card, not the version."""
        records, parameters = Records(records_folder(self._settings)), asdict(self._settings.train)
        try:
            manifest = self._versions.registry.manifest(version)
            records.version(manifest, judged.decision, parameters, self._heads(version, judged))
        except OSError as error:
            self._runtime.caught("learn.card", error)

    def _heads(self, version: str, judged: Judged) -> Mapping[str, HeadResult]:
        """The heads on the newest test chats, with the weights that are published."""
        config = self._settings.publish
        if not config.head_chats or not judged.candidate.heads:
            return {}
        held_out = self._stored.test()[-config.heldout :]
        trained = self._stored.train()[: config.head_chats]
        return check(judged.candidate.heads, self._versions.tree(version), trained, held_out)

    def _audit(self, value: dict[str, Any]) -> None:
        topic = self._settings.kafka.prefix + ADAPTER_EVENTS
        send(self._producer, topic, str(value["version"]), msgspec.json.encode(value))
