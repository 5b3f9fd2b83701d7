"""What the next turn and later feedback say of a reply: label, training weight, confidence, evidence.

Rules, in the order of how sure they are: an edit by an agent, a rating, escalation or reopening, what the customer
writes next. Unknown is the normal case. People's replies of unknown outcome keep weight 1; a model's have none until
something is known, which the assembler sees by `label`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile

from streams.events import CleanEvent, Feedback, Label, Pair, Turn

_THANKS = re.compile(
    r"\b(?:thank(?:s|\s?you|x)?|thx|ty|tysm|cheers|appreciate(?:d)?|grateful|much obliged)\b", re.IGNORECASE
)
_SOLVED = re.compile(
    r"\b(?:(?:that|this|it)(?:'s| is| has|'ve| have)? (?:worked|works(?! not)|fixed|solved|did (?:it|the trick)|helped)"
    r"|works (?:now|fine|perfectly|great)|working (?:now|again)|problem (?:is )?solved|all (?:set|good|sorted)"
    r"|sorted (?:now|it)|perfect|exactly what i (?:needed|wanted)"
    r"|that(?:'s| is| was) (?:great|perfect|helpful|all i need(?:ed)?|exactly)"
    r"|(?:very|so|really|super) helpful|got it (?:working|now)|awesome|brilliant|excellent|wonderful"
    r"|you(?:'re| are) (?:the best|a lifesaver))\b",
    re.IGNORECASE,
)
_UNSOLVED = re.compile(
    r"\b(?:(?:did|does|do|is|was|has|have|are)(?:n'?t| not)"
    r" (?:work|help|fix|solve|working|helping|helpful|fixed|solved|worked|answer)\w*"
    r"|not (?:what i (?:asked|meant|said|wanted|need(?:ed)?)|working|helpful|true|correct|right|fixed|solved)"
    r"|still (?:not|no|does|doesn'?t|the same|broken|getting|can'?t|cannot|waiting|nothing|isn'?t|won'?t|have the)"
    r"|(?:that|this|it|you)(?:'s|'re| is| are)? (?:wrong|incorrect|nonsense|useless|no help|not right|mistaken)"
    r"|same (?:error|problem|issue)|no,? (?:i (?:said|meant|asked|want(?:ed)?)|that|it|not that|wrong|you)"
    r"|nope,? (?:that|it|still)|(?:already|just) (?:told|said|tried|did|explained)"
    r"|you(?:'re| are) not (?:listening|understanding|reading|helping|getting)"
    r"|makes no sense|made it worse|nothing (?:happen|chang|work)\w*|useless|ridiculous|unacceptable"
    r"|waste of (?:my )?time)",
    re.IGNORECASE,
)
_ESCALATE = re.compile(
    r"\b(?:(?:speak|talk|connect|transfer|escalate|put)\b.{0,30}"
    r"\b(?:human|person|manager|supervisor|someone else|real agent|representative)"
    r"|(?:human|real (?:person|agent)|manager|supervisor) (?:please|now)|(?:your|a|the) (?:manager|supervisor)\b"
    r"|file (?:a )?complaint|cancel my (?:account|subscription|contract)|lawyer|legal action)\b",
    re.IGNORECASE,
)
_DONE = re.compile(
    r"\b(?:(?:is|are|has been|have been|was|were) (?:now )?(?:successfully )?"
    r"(?:booked|confirmed|scheduled|processed|updated|changed|cancelled|refunded|reserved|shipped|fixed|set up|sent)"
    r"|i(?:'ve| have) (?:now )?(?:booked|scheduled|processed|updated|changed|cancelled|refunded|reserved|sent|fixed)"
    r"|all set|successfully)\b",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"\b(?:sorry|unfortunately|apologi[sz]e|unable to|(?:can ?not|can't|could ?n[o']t) (?:help|find|do|book|process)"
    r"|not (?:able|possible|available)|unavailable)\b",
    re.IGNORECASE,
)
_COURTESY = re.compile(r"\b(?:anything|something|what) else|further|(?:can|may) i (?:help|assist)\b", re.IGNORECASE)
FAINT = 0.25
"""Confidence below which two signs that contradict each other are none."""
GOOD_RATING, BAD_RATING = 0.6, 0.4
"""Places on a rating's scale: four stars of five and up, two and down."""
TYPO = 0.1
"""Share of changed words up to which an edit only put a slip right."""
REPHRASED, REPHRASED_WORDS = 0.5, 4
"""Share of changed words below which a question of so many words was asked again."""
_CONTRADICTION = re.compile(r"\b(?:but|however|although|except)\b", re.IGNORECASE)
_NEGATED_THANKS = re.compile(r"\b(?:no thanks to|thanks for nothing|no thank)|\bthanks?,? but\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


@dataclass(frozen=True)
class Signal:
    """What is known of a reply: `weight` for training (0 for bad), `confidence` 0 to 1, `evidence` codes."""

    label: Label = "unknown"
    weight: float = 1.0
    confidence: float = 0.0
    evidence: tuple[str, ...] = ()


Judge = Callable[[str], Signal | None]
"""What a customer said next -> what that says of the reply; None to abstain."""

UNKNOWN = Signal()
"""Nothing is known; the normal case."""

ABANDONED = Signal("unknown", 0.7, 0.3, ("abandoned",))
"""A question of ours that was never answered: not enough to call the reply bad, enough to learn less from it."""


def signals(
    reply: str, following: Sequence[Turn], feedback: Sequence[Feedback | CleanEvent] = (), question: str = "",
    *, left: bool = False, judge: Judge | None = None,
) -> Signal:  # fmt: skip
    """Judge one reply by the turns after it (same conversation, oldest first) and feedback that targets it.

    `question` is the customer's turn before it: who asks the same again was not answered. `left`: the chat was never
    closed, and the customer never came back to it. `judge` is asked where no rule says anything.
    """
    found = [*_from_feedback(reply, feedback), *_from_turns(following, question)]
    opinion = judge(_next_words(following)) if judge and not found and _next_words(following) else None
    if opinion is not None:
        return opinion
    if not found:
        return ABANDONED if left and _waits_for_answer(reply) else UNKNOWN
    best = max(found, key=lambda signal: signal.confidence)
    evidence = tuple(code for signal in found if signal.label == best.label for code in signal.evidence)
    against = max((s.confidence for s in found if s.label not in {best.label, "unknown"}), default=0.0)
    confidence = best.confidence * (1 - against)
    if confidence < FAINT:
        return Signal("unknown", 1.0, confidence, evidence)
    return signal_of(best.label, confidence, *evidence)


def _waits_for_answer(reply: str) -> bool:
    """True for a reply that ends in a question which is more than a courtesy."""
    last = reply.rstrip().rsplit(".", 1)[-1]
    return last.endswith("?") and _COURTESY.search(last) is None


def resolution(turns: Sequence[Turn]) -> float:
    """How likely a conversation ended well, -1 to 1: what customers answered, and what the last replies did or refused.

    A refusal can be the right reply, so this speaks of the conversation and never of one reply.
    """
    replies = [at for at, turn in enumerate(turns) if turn.role in {"agent", "assistant"}]
    answered = [signals(turns[at].text, turns[at + 1 :]) for at in replies]
    said = sum(s.confidence * ((s.label == "good") - (s.label == "bad")) for s in answered[-4:])
    last = [turns[at].text for at in replies[-4:]]
    did = sum(bool(_DONE.search(text)) for text in last) - sum(bool(_REFUSED.search(text)) for text in last)
    return max(-1.0, min(1.0, said / 4 + did / 3))


def rating_share(rating: float, scale: tuple[float, float] | None) -> float:
    """A rating as 0 (worst) to 1 (best); without a scale 0 is bad and 1 good. Clamped."""
    low, high = scale or (0.0, 1.0)
    return min(1.0, max(0.0, (rating - low) / (high - low)))


def edit_distance(draft: str, final: str) -> float:
    """The share of words that an edit changed, 0 (none) to 1 (all)."""
    return 1 - SequenceMatcher(None, _WORD.findall(draft.lower()), _WORD.findall(final.lower()), autojunk=False).ratio()


def pair_from_edit(draft: str, final: str) -> Pair | None:
    """The preference final > draft; None if the edit changed nothing but spacing, casing or punctuation."""
    if not final.strip() or edit_distance(draft, final) == 0:
        return None
    return Pair(draft, final)


def signal_of(label: Label, confidence: float, *evidence: str) -> Signal:
    """A signal with the weight that its label and confidence give."""
    weight = {"good": 1.0 + confidence / 2, "bad": 0.0, "unknown": 1.0}[label]
    return Signal(label, weight, confidence, evidence)


def _from_feedback(reply: str, feedback: Sequence[Feedback | CleanEvent]) -> list[Signal]:
    found = []
    for event in feedback:
        if event.corrected_text is not None:
            found.append(_from_edit(edit_distance(reply, event.corrected_text)))
        if event.kind in {"escalated", "reopened"}:
            found.append(signal_of("bad", 0.85, event.kind))
        if event.rating is not None:
            share = rating_share(event.rating, event.scale)
            if share >= GOOD_RATING:
                found.append(signal_of("good", 0.6 + 0.35 * share, "rating"))
            elif share <= BAD_RATING:
                found.append(signal_of("bad", 0.95 - 0.35 * share, "rating"))
    return found


def _from_edit(distance: float) -> Signal:
    if distance < TYPO:
        return signal_of("good", 0.9, "edit_small")
    return signal_of("bad", min(0.98, 0.7 + distance), "edit")


def _next_words(following: Sequence[Turn]) -> str:
    """What the customer says up to the next reply; later turns say little about this one."""
    said = takewhile(lambda turn: turn.role == "customer", following)
    return " ".join(turn.text for turn in said).replace("’", "'")


def _from_turns(following: Sequence[Turn], question: str) -> list[Signal]:
    """Signs in the customer's next words."""
    text = _next_words(following)
    if not text:
        return []
    found = _from_words(text)
    again = len(_WORD.findall(question)) >= REPHRASED_WORDS and edit_distance(question, text) < REPHRASED
    if again and not any(signal.label == "good" for signal in found):
        found.append(signal_of("bad", 0.55, "rephrase"))
    return found


def _from_words(text: str) -> list[Signal]:
    found = []
    if _ESCALATE.search(text):
        found.append(signal_of("bad", 0.8, "escalation"))
    if _UNSOLVED.search(text):
        found.append(signal_of("bad", 0.75, "unsolved"))
    solved = _SOLVED.search(text)
    if solved and not found:
        found.append(signal_of("good", 0.7, "solved"))
    if _THANKS.search(text) and not found and not _NEGATED_THANKS.search(text):
        found.append(signal_of("good", 0.6 if not _CONTRADICTION.search(text) else 0.3, "thanks"))
    return found
