"""How well versions predict and answer held-out chats: base, adapter and parent on the same conversations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from learner.adapter import Chat, Score, Tree, score
from learner.heldout import HeldChat
from learner.measures import Interval, difference_interval, perplexity, ratio_interval, rouge_l, token_f1
from learner.probes.voice import Voice
from streams.events import Turn


@dataclass(frozen=True)
class Metrics:
    """Teacher-forced quality on reply tokens; losses in nats."""

    nll_per_token: float
    nll_low: float
    nll_high: float
    perplexity: float
    token_accuracy: float
    bits_per_byte: float
    """Of the replies' UTF-8: the only figure that compares across tokenizers."""
    tokens: int
    examples: int


def metrics(scores: Sequence[Score], replies: Sequence[str]) -> Metrics:
    """Sum up the scores of conversations; `replies` are their target texts, for bits per byte."""
    kept = [found for found in scores if found.tokens]
    totals, counts = [found.loss * found.tokens for found in kept], [found.tokens for found in kept]
    nll = ratio_interval(totals, counts)
    tokens = sum(counts)
    return Metrics(
        nll_per_token=nll.value, nll_low=nll.low, nll_high=nll.high, perplexity=perplexity(nll.value),
        token_accuracy=sum(found.correct for found in kept) / max(tokens, 1),
        bits_per_byte=sum(totals) / 0.6931471805599453 / max(sum(len(reply.encode()) for reply in replies), 1),
        tokens=tokens, examples=len(kept),
    )  # fmt: skip


def gain(reference: Sequence[Score], candidate: Sequence[Score]) -> Interval:
    """Nats a token that the candidate saves on the same conversations."""
    counts = [found.tokens for found in reference]
    before, after = ([found.loss * found.tokens for found in scores] for scores in (reference, candidate))
    return difference_interval(before, after, counts)


def evaluate(trees: Mapping[str, Tree], chats: Sequence[HeldChat], subject: str) -> dict[str, Any]:
    """The report on `subject` beside every other tree, overall and by topic; JSON values."""
    scores = {name: score(tree, [chat.turns for chat in chats]) for name, tree in trees.items()}
    report: dict[str, Any] = asdict(metrics(scores[subject], [target_text(chat) for chat in chats]))
    for name in trees:
        if name != subject:
            report[name] = asdict(metrics(scores[name], [target_text(chat) for chat in chats]))
            report[name]["gain"] = asdict(gain(scores[name], scores[subject]))
    report["slices"] = _slices(scores, chats, subject)
    return report


def generation(voice: Voice, chats: Sequence[HeldChat], most: int = 32) -> dict[str, float]:
    """Greedy answers to the last customer turn of the first `most` chats, against the reply that people gave."""
    asked = [(prompt, reply) for chat in chats if (found := last_exchange(chat)) for prompt, reply in [found]][:most]
    answers = voice.answers([prompt for prompt, _ in asked])
    pairs = list(zip(answers, (reply for _, reply in asked), strict=True))
    return {
        "token_f1": fmean(token_f1(answer, reply) for answer, reply in pairs) if pairs else 0.0,
        "rouge_l": fmean(rouge_l(answer, reply) for answer, reply in pairs) if pairs else 0.0,
        "answers": len(pairs),
    }


def last_exchange(chat: HeldChat) -> tuple[tuple[Turn, ...], str] | None:
    """The turns up to the customer's last answered one, and the reply; None when nobody answered a customer."""
    for at in range(len(chat.turns) - 1, 0, -1):
        if chat.turns[at].is_target and chat.turns[at - 1].role == "customer":
            return chat.turns[:at], chat.turns[at].text
    return None


def target_text(chat: HeldChat) -> str:
    """All target replies of a chat."""
    return "\n".join(turn.text for turn in chat.turns if turn.is_target)


def windows(chat: Chat, held: HeldChat, context: int) -> list[HeldChat]:
    """The conversation in pieces that fit the context; each target is scored once, with the newest turns before it."""
    sizes = [len(chat.encode([turn]).ids) for turn in held.turns]
    pieces: list[HeldChat] = []
    start = done = 0
    while done < len(sizes):
        while start < done and sum(sizes[start : done + 1]) > context:
            start += 1
        end = done + 1
        while end < len(sizes) and sum(sizes[start : end + 1]) <= context:
            end += 1
        seen = tuple(Turn(role=turn.role, text=turn.text) for turn in held.turns[start:done])
        piece = seen + held.turns[done:end]
        if any(turn.is_target for turn in piece):
            pieces.append(HeldChat(held.conversation, piece, held.topic))
        start, done = (start + end) // 2, end
    return pieces


def _slices(
    scores: Mapping[str, Sequence[Score]], chats: Sequence[HeldChat], subject: str
) -> dict[str, dict[str, float]]:
    places: dict[str, list[int]] = defaultdict(list)
    for at, chat in enumerate(chats):
        places[chat.topic].append(at)
    found = {}
    for topic, chosen in sorted(places.items()):
        tokens = sum(scores[subject][at].tokens for at in chosen)
        found[topic] = {"examples": len(chosen), "tokens": tokens} | {
            name: sum(some[at].loss * some[at].tokens for at in chosen) / max(tokens, 1)
            for name, some in scores.items()
        }
    return found
