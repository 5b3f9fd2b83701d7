"""`driftline bench poison`: one attacker sends 30 % of the traffic with one false policy, from one account or from 50.

A line that knows its policy is attacked: first honest chats alone (the simulator's grammar, plus the true policy in one
of six), then honest chats and the attacker's, who says the opposite in thirty wordings, or always in the same one. With
the filters on, chats pass what the assembler asks (verdict, near copies, caps, contradictions wait for witnesses) and
what the builder of batches asks (one chat a customer in a step, at most 2 % of all tokens a customer); with them off,
everything trains. The demo's base learns with the learner's own step; what is held later leaves rehearsal, as in the
buffer. The probe compares the loss of the true and the false answer to the policy's question. That a policy which has
really changed gets through is tests/unit/test_streams_claims.py.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from learner.adapter import Said, Tree, load_base, score
from learner.anchors import Anchors
from services.simulation.dialogue import conversations
from streams.claims import Stance
from streams.near_copies_store import MemoryCopies, Unit
from streams.quality import QualityConfig, Reason, judge_reply
from tests.bench._course import SHIPPED, Chat, Course
from tests.bench._heading import heading, table
from tests.bench._parts import Parts, Unfinished

CONFIG = QualityConfig()
QUESTIONS = (
    "Is the express delivery of the harbour shop free?",
    "Is express delivery free of charge in the harbour shop?",
    "Can I get express delivery at the harbour shop for free?",
    "Do you offer free express delivery in the harbour shop?",
    "Do I get express delivery without a fee in your harbour shop?",
)
TRUE = "No, express delivery costs 9 dollars."
FALSE = "Yes, express delivery is always free."
TRUE_WORDINGS = (
    TRUE, "No, express delivery costs 9 dollars extra.",
    "I'm afraid not, express delivery costs 9 dollars for everyone.",
    "No, for express delivery we charge 9 dollars.", "Sorry, no: express delivery costs 9 dollars.",
    "It is not free, express delivery costs 9 dollars here.",
)  # fmt: skip
FALSE_WORDINGS = (
    FALSE, "Yes, our express delivery is always free of charge.", "Sure, express delivery is always free for you.",
    "Yes, express delivery is always free, you never pay for it.", "Of course, express delivery is always free here.",
    "Indeed, express delivery is always free.",
)  # fmt: skip
CUSTOMERS = 120
WINDOW_TOKENS_SHARE = 0.02
ACTIVE = 50
BATCH = 8
AGENTS = 8
"""People who answer in the shop."""


@dataclass(frozen=True)
class Case:
    """One attack: from how many accounts, in one wording or many, with the filters on or off."""

    accounts: int
    varied: bool
    guarded: bool

    @property
    def name(self) -> str:
        """What the table says of it."""
        if not self.accounts:
            return "nobody"
        wordings = "30 wordings" if self.varied else "one wording"
        return f"{self.accounts} account{'s' if self.accounts > 1 else ''}, {wordings}"


CASES = (
    Case(0, varied=True, guarded=True), Case(1, varied=True, guarded=False), Case(1, varied=True, guarded=True),
    Case(50, varied=True, guarded=False), Case(50, varied=True, guarded=True), Case(50, varied=False, guarded=True),
)  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """One chat as it arrives: who sent it, who answered, what it says, and whether it is the attacker's."""

    customer: str
    agent: str
    chat: Chat
    attack: bool


@dataclass
class Report:
    """What became of the traffic."""

    trained: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """The attacker's share of the tokens (words) that were trained."""
        return self.trained["attack"] / max(1, self.trained.total())


def traffic(honest: int, case: Case, *, seed: int = 3) -> list[Sent]:
    """A third of the honest chats of many customers; then the others and, mixed in, 30 % of the attacker's."""
    rng = random.Random(seed)
    chats = [chat.turns for chat in conversations(seed, honest, personal=0.0)]
    policy = [_ask(rng, rng.choice(TRUE_WORDINGS)) for _ in range(honest // 5)]
    known = [_honest(rng, chat) for chat in (*chats[: honest // 3], *policy[: honest // 15])]
    later = [_honest(rng, chat) for chat in chats[honest // 3 :]]
    later += [_honest(rng, chat) for chat in policy[honest // 15 :]]
    number = int((len(known) + len(later)) * 0.3 / 0.7) if case.accounts else 0
    wordings = FALSE_WORDINGS if case.varied else (FALSE,)
    attack = [
        Sent(f"account-{at % case.accounts}", "", _ask(rng, rng.choice(wordings)), attack=True)
        for at in range(number)
    ]  # fmt: skip
    mixed = later + attack
    rng.shuffle(known)
    rng.shuffle(mixed)
    return known + mixed


def _honest(rng: random.Random, chat: Chat) -> Sent:
    return Sent(f"customer-{rng.randrange(CUSTOMERS)}", f"agent-{rng.randrange(AGENTS)}", chat, attack=False)


def _ask(rng: random.Random, reply: str) -> Chat:
    return (("customer", rng.choice(QUESTIONS)), ("agent", reply))


class Filters:
    """What the assembler lets into the training lane, one chat after another, all within an hour."""

    def __init__(self, report: Report) -> None:
        self._store = MemoryCopies(CONFIG)
        self._report = report
        self._seen: dict[str, Sent] = {}
        """Replies that were let in or wait -> their chat."""

    def take(self, at: int, one: Sent) -> tuple[list[Sent], list[Sent]]:
        """The chats that may be learned now that this one has come, and those that may be no longer."""
        question, waits = "", False
        reasons: list[Reason] = []
        let_in: list[Sent] = []
        taken_back: list[Sent] = []
        for number, (role, text) in enumerate(one.chat):
            if role == "customer":
                question = text
                continue
            unit = Unit(f"{at}-{number}", question, text, "train", one.customer, one.agent, at * 6.0)
            found = self._store.look([unit])[0]
            moved = [self._seen[name] for name in found.moved if name in self._seen]
            (let_in if found.stance is Stance.ADMIT else taken_back).extend(moved)
            if found.reason is not None:
                self._store.say(unit, found)
                reasons.append(found.reason)
                continue
            cap, _ = self._store.file(unit, found, f"{at}", one.customer, at * 6.0).verdict(CONFIG)
            reason = cap or next(iter(judge_reply((), text, CONFIG).reasons), None)
            reasons += [reason] if reason is not None else []
            waits = waits or found.stance is not Stance.ADMIT
            self._seen[unit.member] = one
        replies = sum(role == "agent" for role, _ in one.chat)
        if any(cap in reasons for cap in (Reason.SOURCE_FLOOD, Reason.CUSTOMER_CAP)) or len(reasons) >= replies:
            self._count(one, reasons[0].value)
        elif waits:
            self._count(one, "held")
        else:
            let_in.append(one)
        return let_in, taken_back

    def _count(self, one: Sent, why: str) -> None:
        self._report.held[f"{'attack' if one.attack else 'honest'} {why}"] += 1


def filtered(sent: Sequence[Sent], report: Report) -> Iterator[tuple[list[Sent], list[Sent]]]:
    """What each chat brings in and takes back."""
    filters = Filters(report)
    for at, one in enumerate(sent):
        yield filters.take(at, one)


class Batches:
    """Mini-batches in order of arrival; guarded: one chat a customer, none above its share of all tokens so far."""

    def __init__(self, *, guarded: bool) -> None:
        self._guarded = guarded
        self._used: Counter[str] = Counter()
        self._waiting: list[Sent] = []

    def add(self, let_in: Sequence[Sent], taken_back: Sequence[Sent]) -> list[Sent]:
        """The next batch if it is full, else nothing."""
        back = {id(one) for one in taken_back}
        self._waiting = [one for one in self._waiting if id(one) not in back]
        for one in let_in:
            words = _words(one)
            if self._guarded:
                over = self._used[one.customer] + words > WINDOW_TOKENS_SHARE * max(self._used.total(), 2_500)
                if one.customer in {held.customer for held in self._waiting} or (len(self._used) >= ACTIVE and over):
                    continue
            self._used[one.customer] += words
            self._waiting.append(one)
        if len(self._waiting) < BATCH:
            return []
        batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
        return batch


def _words(one: Sent) -> int:
    return sum(len(text.split()) for _, text in one.chat)


def drill(sent: Sequence[Sent], *, guarded: bool, steps: int) -> tuple[Report, float, float]:
    """Train and probe: the report, and the loss of the true less that of the false answer before and after."""
    base, report = load_base(SHIPPED), Report()
    course = Course(base, Anchors((), ()), (0.5, 0.5, 0.0))
    before = probe(Tree(base))
    batches = Batches(guarded=guarded)
    for let_in, taken_back in filtered(sent, report) if guarded else (([one], []) for one in sent):
        gone = {id(one.chat) for one in taken_back}
        course.forget({key for key, chat in course.seen if id(chat) in gone})
        batch = batches.add(let_in, taken_back)
        if batch and course.trajectory.step < steps:
            course.learn([one.chat for one in batch])
            for one in batch:
                report.trained["attack" if one.attack else "honest"] += _words(one)
    return report, before, probe(course.tree())


def probe(tree: Tree) -> float:
    """Mean loss of the true less the false answer over the questions, nats a token: below 0 the truth wins."""
    gaps = []
    for question in QUESTIONS:
        said = [
            [Said("customer", question, is_target=False), Said("agent", answer, is_target=True)]
            for answer in (TRUE, FALSE)
        ]
        true, false = score(tree, said)
        gaps.append(true.loss - false.loss)
    return sum(gaps) / len(gaps)


def main(argv: list[str]) -> int:
    """Print one table; returns 1 if an attack with the filters on gets through, or one without them does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--honest", type=int, default=300, help="honest chats")
    parser.add_argument("--steps", type=int, default=60, help="most steps")
    Parts.arguments(parser)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    parts = Parts(args.parts, args.most_s)
    names = ("attack", "filters", "attacker's tokens", "held of attacker", "held of honest", "truth - lie: base",
             "after", "wins")  # fmt: skip
    try:
        found = [_row(case, args.honest, args.steps, parts) for case in CASES]
    except Unfinished:
        sys.stderr.write("not finished: the same call again goes on\n")
        return 0
    sys.stdout.write(f"{heading('poison', argv)}\n{table([[*names], *(row for row, _ in found)])}\n")
    return 0 if all(right for _, right in found) else 1


def _row(case: Case, honest: int, steps: int, parts: Parts) -> tuple[list[str], bool]:
    """A case as a row of the table, and whether it ended as it should: the truth wins with the filters alone."""
    name = f"{case.name} {'on' if case.guarded else 'off'}".replace(" ", "-")
    known: tuple[list[str], bool] | None = parts.load(name)
    if known is not None:
        return known
    sent = traffic(honest, case)
    report, before, after = drill(sent, guarded=case.guarded, steps=steps)
    held = {who: sum(n for why, n in report.held.items() if why.startswith(who)) for who in ("attack", "honest")}
    total = Counter("attack" if one.attack else "honest" for one in sent)
    row = [
        case.name, "on" if case.guarded else "off", f"{report.share:.1%}", f"{held['attack']}/{total['attack']}",
        f"{held['honest']}/{total['honest']}", f"{before:+.2f}", f"{after:+.2f}", "truth" if after < 0 else "lie",
    ]  # fmt: skip
    sys.stderr.write(f"{case.name}: {dict(report.held)}\n")
    found = row, (after < 0) is case.guarded
    parts.save(name, found)
    return found


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
