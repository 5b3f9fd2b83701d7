"""Turns of a chat <-> token ids: control tokens are placed as ids, text can never become one."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer

from learner.conditions import CONDITIONS_FILE

SPEAKER = {"customer": "user", "user": "user", "agent": "agent", "assistant": "agent", "system": "system"}
"""Whose voice a role is for the model: people and adapters answer alike."""

CONTROL = ("<|pad|>", "<|user|>", "<|agent|>", "<|end|>")
"""Control tokens of driftline's own bases, ids 0 to 3."""

CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ m['content'] }}"
    "{% elif m['role'] == 'user' %}{{ '<|user|>' + m['content'] + '<|end|>' }}"
    "{% else %}{{ '<|agent|>' + m['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|agent|>' }}{% endif %}"
)
"""The same layout for transformers and vLLM; a system message is text before the first customer turn."""


class ChatTurn(Protocol):
    """What is needed of a turn; streams.events.Turn is one."""

    @property
    def role(self) -> str:
        """Who speaks: a key of SPEAKER."""

    @property
    def text(self) -> str:
        """What was said."""

    @property
    def is_target(self) -> bool:
        """Whether the loss is on this turn."""

    @property
    def label(self) -> str:
        """How a reply was received: good, bad or unknown."""


@dataclass(frozen=True)
class Said:
    """A plain turn for prompts and tests."""

    role: str
    text: str
    is_target: bool = False
    label: str = "unknown"


@dataclass(frozen=True)
class Encoded:
    """Token ids of a chat and where its targets lie."""

    ids: tuple[int, ...]
    targets: tuple[tuple[int, int, int], ...]
    """(turn, start, stop) of each target: its text and its end-of-turn token."""
    heard: tuple[tuple[int, int], ...] = ()
    """(turn, place of its end-of-turn token) of each customer turn."""

    def mask(self) -> list[bool]:
        """For each id whether it is a target token."""
        flags = [False] * len(self.ids)
        for _, start, stop in self.targets:
            flags[start:stop] = [True] * (stop - start)
        return flags


@dataclass(frozen=True)
class Layout:
    """How a base writes a chat, in ids: `begin`, then for each turn `opens[speaker] text end after`."""

    begin: tuple[int, ...]
    opens: dict[str, tuple[int, ...]]
    """By speaker; `bad` opens an agent's turn that was received badly, where the base is conditioned on that."""
    end: tuple[int, ...]
    """End-of-turn ids, part of the target: without them the model never learns to stop."""
    after: tuple[int, ...]
    """What stands between turns, never a target."""
    bare_system: bool
    """Whether a system message is written without tags and end."""


@dataclass(frozen=True)
class Chat:
    """A tokenizer with special tokens off, and the layout of its base."""

    tokenizer: Tokenizer
    layout: Layout

    @property
    def conditioned(self) -> bool:
        """Whether a reply is written behind a word on how it was received."""
        return "bad" in self.layout.opens

    @property
    def stop_id(self) -> int:
        """The id that ends a reply."""
        return self.layout.end[0]

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text; control tokens written out in it stay text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, control tokens left out."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def encode(self, turns: Sequence[ChatTurn]) -> Encoded:
        """Ids and targets of a chat."""
        layout, ids, targets, heard = self.layout, list(self.layout.begin), [], []
        for index, turn in enumerate(turns):
            speaker = SPEAKER[turn.role]
            if speaker == "system" and layout.bare_system:
                ids += self.text_ids(turn.text)
                continue
            bad = self.conditioned and speaker == "agent" and turn.label == "bad"
            ids += layout.opens["bad" if bad else speaker]
            start = len(ids)
            ids += [*self.text_ids(turn.text), *layout.end]
            if turn.is_target:
                targets.append((index, start, len(ids)))
            if speaker == "user":
                heard.append((index, len(ids) - len(layout.end)))
            ids += layout.after
        return Encoded(tuple(ids), tuple(targets), tuple(heard))

    def prompt(self, turns: Sequence[ChatTurn], limit: int | None = None) -> list[int]:
        """Ids after which the model answers; the oldest turns are left out until they fit `limit` tokens."""
        kept = list(turns)
        while True:
            ids = [*self.encode(kept).ids, *self.layout.opens["agent"]]
            if limit is None or len(ids) <= limit:
                return ids
            if len(kept) == 1:
                return ids[-limit:]
            kept.pop(1 if SPEAKER[kept[0].role] == "system" else 0)


def encode_chat(chat: Chat, turns: Sequence[ChatTurn]) -> tuple[tuple[int, ...], list[bool]]:
    """Ids of a chat and for each id whether it is a target."""
    encoded = chat.encode(turns)
    return encoded.ids, encoded.mask()


def load_chat(path: Path) -> Chat:
    """The tokenizer in a folder, with the layout that its control tokens tell. Raises ValueError for an unknown one."""
    chat = chat_of(Tokenizer.from_file(str(path / "tokenizer.json")))
    words = path / CONDITIONS_FILE
    return conditioned(chat, **json.loads(words.read_text())) if words.exists() else chat


def conditioned(chat: Chat, good: str, bad: str) -> Chat:
    """The chat with a system message before each reply that says how it was received; prompts ask for a good one."""
    layout = chat.layout
    before = () if layout.bare_system else layout.opens["system"]
    behind = () if layout.bare_system else (*layout.end, *layout.after)

    def opening(words: str) -> tuple[int, ...]:
        return (*before, *chat.text_ids(words), *behind, *layout.opens["agent"])

    opens = {**layout.opens, "agent": opening(good), "bad": opening(bad)}
    return replace(chat, layout=replace(layout, opens=opens))


def chat_of(tokenizer: Tokenizer) -> Chat:
    """A chat on a tokenizer: driftline's own control tokens, ChatML or Llama 3 headers."""
    tokenizer.encode_special_tokens = True

    def token(name: str) -> int | None:
        found: int | None = tokenizer.token_to_id(name)
        return found

    def text(value: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(value, add_special_tokens=False).ids)

    _, user, agent, end = (token(name) for name in CONTROL)
    if user is not None and agent is not None and end is not None:
        return Chat(tokenizer, Layout((), {"user": (user,), "agent": (agent,)}, (end,), (), bare_system=True))
    roles = {"user": "user", "agent": "assistant", "system": "system"}
    start, stop = token("<|im_start|>"), token("<|im_end|>")
    if start is not None and stop is not None:
        opens = {speaker: (start, *text(f"{role}\n")) for speaker, role in roles.items()}
        return Chat(tokenizer, Layout((), opens, (stop,), text("\n"), bare_system=False))
    begin, head, tail = token("<|begin_of_text|>"), token("<|start_header_id|>"), token("<|end_header_id|>")
    stop = token("<|eot_id|>")
    if begin is not None and head is not None and tail is not None and stop is not None:
        opens = {speaker: (head, *text(role), tail, *text("\n\n")) for speaker, role in roles.items()}
        return Chat(tokenizer, Layout((begin,), opens, (stop,), (), bare_system=False))
    raise ValueError("tokenizer 'tokenizer.json' has no known control tokens: not <|user|>, <|im_start|> or headers")
