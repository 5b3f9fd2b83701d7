"""What the next step trains on: fresh samples once each, rehearsal and anchors by their shares of its tokens.

Shares are counted in tokens: each draw is sized by the running mean length of its component, and what a step had too
little or too much of is carried over. One conversation per customer stands in a step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from learner.adapter.chat import Chat
from learner.batch import Component, Document, Drawn, documents
from learner.config import TrainConfig
from learner.copies import Copies
from streams.augment import AugmentConfig
from streams.events import Sample
from streams.replay.buffer import ReplayBuffer
from streams.replay.config import ANCHOR, QUARANTINE
from streams.replay.lineage import entries
from streams.replay.mix import Mix, Part, draw_seed
from streams.replay.shapes import Handle, Wait

FRESH = Mix((Part("fresh", "*", 1.0),))
CURATED = Mix((Part("uniform", ANCHOR, 1.0),))

ACTIVE_CUSTOMERS = 50
"""Below it no customer's share is bounded: a demo or a new line has few."""

SHARE_STEPS = 100
"""Steps over which a customer's share of tokens is counted."""

OVERLOAD = 2
"""Batches of fresh samples that wait before fresh takes `RUSH_SHARE` of a step."""

RUSH_SHARE = 2 / 3
"""Share of a step's tokens while a backlog lasts; the rehearsal that it holds back is made up for afterwards."""

AHEAD = 8
"""Batches of fresh samples held at most: a draw is at random among all that wait, what is held goes oldest first."""

MEAN_LENGTH = 160.0
"""Tokens of a document before any was seen."""

PATIENCE = 5
"""Multiples of `fresh_wait_s` after which a step runs although the limiter holds rehearsal back."""

SMOOTHING = 0.05
"""Weight of a new length in the running mean."""


@dataclass(frozen=True)
class Item:
    """A drawn sample with its documents."""

    handle: Handle
    sample: Sample
    documents: tuple[Document, ...]

    @property
    def tokens(self) -> int:
        """Tokens of its documents."""
        return sum(len(document.ids) for document in self.documents)

    @property
    def rated(self) -> int:
        """Tokens of its documents with rated or edited replies."""
        return sum(len(document.ids) for document in self.documents if document.drawn.signal)


@dataclass(frozen=True)
class Plan:
    """One step's documents, in order, and the handles to report as trained."""

    step: int
    documents: tuple[Document, ...]
    handles: Mapping[str, Handle]
    """Key of a sample's documents -> its handle; self-made anchors have none."""
    fresh: Mapping[str, Sample]
    """Key -> sample of the fresh ones."""
    missing: int = 0
    """Samples of a logged plan that are gone; then the step is not the one that was taken."""


class Feed:
    """Draws for one line; `anchors` are self-made, `line` keeps other lines' samples out."""

    def __init__(
        self, buffer: ReplayBuffer, chat: Chat, anchors: Sequence[Document], config: TrainConfig,
        augmented: AugmentConfig | None = None,
    ) -> None:  # fmt: skip
        self._buffer = buffer
        self._chat = chat
        self._anchors = anchors
        self._by_key = {anchor.drawn.key: anchor for anchor in anchors}
        self._config = config
        self.copies = Copies(chat, config, augmented or AugmentConfig())
        parts = (Part("uniform", "*", 1 - config.recent_share), Part("recent", "*", config.recent_share))
        self._rehearsed = Mix(tuple(part for part in parts if part.share > 0))
        self._pending: deque[Item] = deque()
        self._since = 0.0
        self._used: deque[dict[str, int]] = deque(maxlen=SHARE_STEPS)
        self.lengths = {"fresh": MEAN_LENGTH, "rehearsal": MEAN_LENGTH, "anchor": MEAN_LENGTH}
        self.debt = {"rehearsal": 0.0, "anchor": 0.0}
        self.owed = {"rehearsal": 0.0, "anchor": 0.0}
        """Tokens that a backlog has held back; they are made up for once nothing fresh waits."""
        self.superseded: set[str] = set()
        self.outdated: Callable[[Sample], bool] = lambda _sample: False
        """Whether a sample states a fact that has changed: however old it is, it is not rehearsed again."""
        self.anchor_share = config.anchor_share
        self.waits: dict[str, int] = {"limiter": 0, "empty": 0}

    def gather(self, run: int, step: int, now: float, *, make_up: bool = True, at_once: bool = False) -> Plan | None:
        """The documents of a step, or None while there is nothing to train on yet; `now` in seconds.

        Without fresh samples a step makes up for what a backlog held back, if `make_up` says that this is the time.
        `at_once`: few fresh samples need not wait for more.
        """
        config = self._config
        short = AHEAD * config.fresh_batch - len(self._pending)
        if short > 0:
            drawn = self._draw(FRESH, short, draw_seed(run, step + int(now * 10), "fresh"), lease_s=config.lease_s)
            if not self._pending:
                self._since = now
            self._pending = deque(sorted((*self._pending, *drawn), key=lambda item: item.sample.completed_at))
        waits = len(self._pending) < config.fresh_batch and now - self._since < config.fresh_wait_s and not at_once
        if not self._pending or waits:
            return self._made_up(run, step) if make_up else None
        before = self.waits["limiter"]
        fresh = self._one_per_customer()
        tokens = sum(item.tokens for item in fresh)
        shares = self._shares()
        # the buffer's limiter counts samples: rehearsal that is shorter than fresh text must not overdraw it
        credit = self._buffer.limits.samples_per_insert - 1
        most = len(fresh) * credit if credit > 0 else math.inf
        rehearsal = self._rehearsal(run, step, tokens * shares["rehearsal"] / shares["fresh"], fresh, most)
        if self.waits["limiter"] > before and now - self._since < PATIENCE * config.fresh_wait_s:
            self._pending.extendleft(reversed(fresh))  # fresh text without rehearsal is how a model forgets
            return None
        self._since = now
        usual = self._usual_shares()
        for name in self.owed:
            self.owed[name] += tokens * (usual[name] / usual["fresh"] - shares[name] / shares["fresh"])
        return self._plan(run, step, fresh, rehearsal, tokens * shares["anchor"] / shares["fresh"])

    def _made_up(self, run: int, step: int) -> Plan | None:
        """A step without fresh samples, as long as the rest of a usual one, while a backlog's rehearsal is owed."""
        usual, fresh = self._usual_shares(), self._config.fresh_batch * self.lengths["fresh"]
        wanted = {name: fresh * usual[name] / usual["fresh"] for name in self.owed}
        if self.owed["rehearsal"] < max(wanted["rehearsal"], 1.0):
            return None
        rehearsal = self._rehearsal(run, step, wanted["rehearsal"], (), math.inf)
        if not rehearsal:  # the limiter says so
            return None
        for name, tokens in wanted.items():
            self.owed[name] -= tokens
        return self._plan(run, step, (), rehearsal, wanted["anchor"])

    def _plan(self, run: int, step: int, fresh: Sequence[Item], rehearsal: Sequence[Item], anchors: float) -> Plan:
        """The step of these samples, with anchors of so many tokens and augmented copies."""
        chosen = [document for item in (*fresh, *rehearsal) for document in item.documents]
        handles = {item.handle.digest.hex(): item.handle for item in (*fresh, *rehearsal)}
        for document, handle in self._anchor(run, step, anchors):
            chosen.append(document)
            if handle is not None:
                handles[handle.digest.hex()] = handle
        chosen += self.copies.of({i.handle.digest.hex(): i.sample for i in rehearsal}, chosen, run, step)
        self._count(chosen)
        return Plan(step, tuple(chosen), handles, {item.handle.digest.hex(): item.sample for item in fresh})

    def logged(self, entry: Mapping[str, Any]) -> Plan:
        """The plan of a draw-log entry, its samples fetched again; what was erased since is missing."""
        keys = list(dict.fromkeys(row["key"] for row in entry["rows"] if row["handle"] is not None))
        found = dict(zip(keys, self._buffer.samples(bytes.fromhex(key) for key in keys), strict=True))
        chosen, handles, fresh, missing = list[Document](), dict[str, Handle](), dict[str, Sample](), 0
        for row in entry["rows"]:
            document = self._of_row(row, found)
            if document is None:
                missing += 1
                continue
            chosen.append(document)
            if row["handle"] is not None:
                slot, seq, *lease = row["handle"]
                handles[row["key"]] = Handle(slot, seq, bytes.fromhex(row["key"]), *lease)
            sample = found.get(row["key"])
            if row["component"] == "fresh" and row["window"] == 0 and sample is not None:
                fresh[row["key"]] = sample
        self._count(chosen)
        self._go_on(entry)
        return Plan(entry["step"], tuple(chosen), handles, fresh, missing=missing)

    def quarantine(self, keys: Iterable[str]) -> int:
        """Put samples into the quarantine lane; how many moved."""
        return self._buffer.relane([bytes.fromhex(key) for key in keys], QUARANTINE)

    def readmit(self, keys: Sequence[str]) -> int:
        """Give samples that waited in quarantine back to their lanes, where they are fresh again; how many."""
        moved = 0
        for sample, key in zip(self._buffer.samples(bytes.fromhex(key) for key in keys), keys, strict=True):
            if sample is not None:
                moved += self._buffer.relane([bytes.fromhex(key)], sample.lane)
        return moved

    def trained(self, plan: Plan, losses: Mapping[str, float], run: int, left_out: Iterable[str]) -> None:
        """Report a step to the buffer: lineage, release of leases, and the loss as the new priority."""
        out = set(left_out)
        handles = [handle for key, handle in plan.handles.items() if key not in out]
        priorities = [max(losses.get(handle.digest.hex(), 1.0), 1e-3) for handle in handles]
        if handles:
            self._buffer.update(handles, priorities, run=run, step=plan.step)

    def retire(self, keys: Sequence[str]) -> int:
        """Take superseded samples out of the buffer; how many were there."""
        return self._buffer.retire([bytes.fromhex(key) for key in keys], "superseded")

    def told(self, run: int) -> int:
        """The last step of a run that the buffer has heard of; telling it again would reorder its bins."""
        return max((step for known, step, _ in entries(self._buffer) if known == run), default=0)

    def forget(self, customers: set[str], keys: set[str]) -> None:
        """Drop what is held of erased customers and samples."""
        kept = [
            item
            for item in self._pending
            if not customers & {item.sample.customer, item.sample.conversation} and item.handle.digest.hex() not in keys
        ]
        self._pending = deque(kept)
        self._used = deque(({w: n for w, n in one.items() if w not in customers} for one in self._used), SHARE_STEPS)
        self.superseded -= keys

    def position(self) -> dict[str, Any]:
        """What every step moves, as JSON; `pending` is [key, slot, seq, lease] of each waiting sample."""
        pending = [[h.digest.hex(), h.slot, h.seq, h.lease] for h in (item.handle for item in self._pending)]
        return {"debt": dict(self.debt), "owed": dict(self.owed), "since": self._since, "pending": pending}

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint needs, as JSON."""
        kept = {"superseded": sorted(self.superseded), "anchor_share": self.anchor_share, "used": list(self._used)}
        return {**self.position(), "lengths": dict(self.lengths), **kept}

    @property
    def waiting(self) -> int:
        """Fresh samples that were drawn and wait for a step."""
        return len(self._pending)

    def restore_pending(self, rows: Sequence[Sequence[Any]]) -> None:
        """Hold these samples again; their leases are still ours."""
        samples = self._buffer.samples(bytes.fromhex(row[0]) for row in rows)
        self._pending.clear()
        for (key, slot, seq, *lease), sample in zip(rows, samples, strict=True):
            if sample is not None:
                made = tuple(self._documents(sample, key, "fresh"))
                self._pending.append(Item(Handle(slot, seq, bytes.fromhex(key), *lease), sample, made))

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.lengths, self.superseded = dict(state["lengths"]), set(state["superseded"])
        self.anchor_share = state["anchor_share"]
        self._used.extend(state["used"])
        self._go_on(state)

    def _go_on(self, position: Mapping[str, Any]) -> None:
        self.debt, self.owed, self._since = dict(position["debt"]), dict(position["owed"]), position["since"]
        self.restore_pending(position["pending"])

    def _shares(self) -> dict[str, float]:
        if self._rush:
            rest = 1 - RUSH_SHARE
            anchor = min(self.anchor_share, rest / 2)
            return {"fresh": RUSH_SHARE, "rehearsal": rest - anchor, "anchor": anchor}
        return self._usual_shares()

    @property
    def _rush(self) -> bool:
        return self.waiting > OVERLOAD * self._config.fresh_batch

    def _usual_shares(self) -> dict[str, float]:
        config = self._config
        anchor = self.anchor_share
        scale = (1 - anchor) / max(1 - config.anchor_share, 1e-9)
        return {"fresh": config.fresh_share * scale, "rehearsal": config.rehearsal_share * scale, "anchor": anchor}

    def _draw(self, mix: Mix, k: int, seed: int, *, lease_s: float = 0.0) -> list[Item]:
        answer = self._buffer.sample(mix, k, seed=seed, lease_s=lease_s)
        if isinstance(answer, Wait):
            self.waits[answer.reason] += 1
            return []
        component: Component = "fresh" if mix is FRESH else "anchor" if mix is CURATED else "rehearsal"
        items = []
        for record, sample in zip(answer[0].records, answer[1].samples, strict=True):
            if sample is None or sample.line != self._config.line or (component == "rehearsal" and not record.times):
                continue
            made = self._documents(sample, record.handle.digest.hex(), component)
            if made:
                items.append(Item(record.handle, sample, tuple(made)))
        return items

    def _documents(self, sample: Sample, key: str, component: Component) -> list[Document]:
        rated = sample.pair is not None or any(turn.is_target and turn.label != "unknown" for turn in sample.turns)
        drawn = Drawn(
            component, key, sample.lane, sample.customer, sample.topic, rated, sample.received_at, sample.completed_at
        )
        return documents(self._chat, sample, drawn, self._config)

    def _one_per_customer(self) -> list[Item]:
        """Fresh items of different customers within the token budget; the others wait for a later step."""
        budget = self._config.step_tokens * self._shares()["fresh"]
        taken: list[Item] = []
        later: deque[Item] = deque()
        seen: set[str] = set()
        heavy = self._heavy()
        for item in self._pending:
            fits = not taken or sum(other.tokens for other in taken) + item.tokens <= budget
            full = len(taken) == self._config.fresh_batch
            if full or not fits or item.sample.customer in seen or item.sample.customer in heavy:
                later.append(item)
            else:
                taken.append(item)
                seen.add(item.sample.customer)
        self._pending = later if taken else deque()
        return taken or list(later)[:1]

    def _rehearsal(self, run: int, step: int, tokens: float, fresh: Sequence[Item], most: float) -> list[Item]:
        """Trained samples of about so many tokens, at most `most` draws, none of a customer who is in the step."""
        wanted = tokens + self.debt["rehearsal"]
        k = int(min(round(wanted / self.lengths["rehearsal"]), most))
        customers = {item.sample.customer for item in fresh}
        if k < 1:
            self.debt["rehearsal"] = wanted
            return []
        taken, heavy = list[Item](), self._heavy()
        rated = self._config.signal_share * tokens / self._shares()["rehearsal"] - sum(item.rated for item in fresh)
        for item in self._draw(self._rehearsed, k, draw_seed(run, step, "rehearsal")):
            customer, key = item.sample.customer, item.handle.digest.hex()
            if key not in self.superseded and self.outdated(item.sample):
                self.superseded.add(key)
                self.retire([key])
            if customer in customers or customer in heavy or key in self.superseded or item.rated > max(rated, 0):
                continue
            rated -= item.rated
            customers.add(customer)
            taken.append(item)
        got = sum(item.tokens for item in taken)
        # a table that is still empty owes nothing later: the debt is bounded by one step's share
        self.debt["rehearsal"] = max(min(wanted - got, tokens), -tokens)
        return taken

    def _anchor(self, run: int, step: int, tokens: float) -> list[tuple[Document, Handle | None]]:
        wanted = tokens + self.debt["anchor"]
        k = round(wanted / self.lengths["anchor"])
        if k < 1:
            self.debt["anchor"] = wanted
            return []
        seed = draw_seed(run, step, "anchor")
        found: list[tuple[Document, Handle | None]] = []
        curated = self._draw(CURATED, (k + 1) // 2, seed) if self._config.curated_anchors else []
        found += [(document, item.handle) for item in curated for document in item.documents]
        own = len(self._anchors)
        found += [(self._anchors[(seed + 7919 * i) % own], None) for i in range(k - len(found)) if own]
        got = sum(len(document.ids) for document, _ in found)
        self.debt["anchor"] = max(min(wanted - got, tokens), -tokens)
        return found

    def _heavy(self) -> set[str]:
        """Customers above their share of the last steps' tokens."""
        total: dict[str, int] = {}
        for step in self._used:
            for customer, tokens in step.items():
                total[customer] = total.get(customer, 0) + tokens
        if len(total) < ACTIVE_CUSTOMERS:
            return set()
        limit = self._config.customer_share * sum(total.values())
        return {customer for customer, tokens in total.items() if tokens > limit}

    def _count(self, chosen: Sequence[Document]) -> None:
        used: dict[str, int] = {}
        for document in chosen:
            drawn = document.drawn
            if drawn.component in self.lengths:
                mean = self.lengths[drawn.component]
                self.lengths[drawn.component] = mean + SMOOTHING * (len(document.ids) - mean)
            if drawn.customer:
                used[drawn.customer] = used.get(drawn.customer, 0) + len(document.ids)
        self._used.append(used)

    def _of_row(self, row: Mapping[str, Any], found: Mapping[str, Sample | None]) -> Document | None:
        if row["handle"] is None:
            return self._by_key.get(str(row["key"]))
        sample = found.get(row["key"])
        made = [] if sample is None else self._documents(sample, row["key"], row["component"])
        if sample is not None and row.get("seed") and made:
            made = self.copies.again(sample, replace(made[0].drawn, seed=row["seed"]))
        if row["window"] >= len(made):
            return None
        document = made[int(row["window"])]
        replies = [replace(r, reference=ref) for r, ref in zip(document.replies, row["references"], strict=False)]
        return replace(document, replies=tuple(replies))
