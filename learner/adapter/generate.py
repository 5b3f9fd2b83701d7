"""Answers token by token with a key-value cache."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from learner.adapter.chat import ChatTurn
from learner.adapter.decoder import Attend, decode
from learner.adapter.padded import logits, pad
from learner.adapter.steps import Reader
from learner.adapter.tree import Tree


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen."""

    max_new_tokens: int = 64
    temperature: float = 0.0
    """0 = greedy."""
    seed: int = 0


class Cache:
    """Keys and values of one document batch: (batch, kv_heads, capacity, d) a layer, `length` filled."""

    def __init__(self, tree: Tree, batch: int, capacity: int) -> None:
        shape = tree.base.shape
        self.tokens = torch.empty((batch, 0), dtype=torch.int64, device=tree.base.device)
        """Read so far; kept only where transformers computes."""
        if tree.base.foreign is not None:
            capacity = 0
        size = (shape.layers, 2, batch, shape.kv_heads, capacity, shape.head_dim)
        self.store = torch.empty(size, dtype=tree.base.dtype, device=tree.base.device)
        self.length = 0


def advance(tree: Tree, tokens: Tensor, cache: Cache) -> Tensor:
    """Read the next tokens (batch, t) into the cache; gives the logits (batch, vocab) after the last one."""
    batch, time = tokens.shape
    last = _read(tree, tokens, cache, torch.arange(time - 1, batch * time, time, device=tokens.device))
    return logits(tree.base, last)


def _read(tree: Tree, tokens: Tensor, cache: Cache, at: Tensor | None = None) -> Tensor:
    """Read the next tokens (batch, t) into the cache; final states of all of them (batch * t, hidden), or of `at`."""
    base, (batch, time) = tree.base, tokens.shape
    if base.foreign is not None:
        cache.tokens = torch.cat((cache.tokens, tokens), dim=1)
        known = base.foreign.hidden(tree.low, cache.tokens).view(*cache.tokens.shape, -1)
        states = known[:, cache.tokens.shape[1] - time :].reshape(batch * time, -1)
        return states if at is None else states[at]
    positions = torch.arange(cache.length, cache.length + time, device=tokens.device).repeat(batch)
    states = decode(base, tree.low, tokens.reshape(-1), positions, _cached(cache, batch, time), at=at)
    cache.length += time
    return states


@torch.inference_mode()
def continued_logits(tree: Tree, prefix: Sequence[int], rows: Sequence[Sequence[int]]) -> Tensor:
    """fp32 logits (B, T, vocab) that predict the tokens of right-padded rows (B, T) behind one prefix, read once."""
    base, tokens = tree.base, pad(rows, tree.base.device)
    once = Cache(tree, 1, len(prefix))
    first = advance(tree, torch.tensor([list(prefix)], device=base.device), once)
    batch, time = len(rows), tokens.shape[1] - 1
    many = Cache(tree, batch, len(prefix) + time)
    many.tokens, many.length = once.tokens.expand(batch, -1), once.length
    many.store[..., : once.length, :] = once.store
    states = _read(tree, tokens[:, :-1], many)
    return torch.cat((first.expand(batch, 1, -1), logits(base, states).view(batch, time, first.shape[-1])), dim=1)


def _cached(cache: Cache, batch: int, time: int) -> Attend:
    start, stop = cache.length, cache.length + time

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        (_, heads, d), kv = q.shape, k.shape[1]
        group = heads // kv
        keys, values = cache.store[layer]
        keys[:, :, start:stop] = k.view(batch, time, kv, d).transpose(1, 2)
        values[:, :, start:stop] = v.view(batch, time, kv, d).transpose(1, 2)
        rows = q.view(batch, time, kv, group, d).permute(0, 2, 3, 1, 4).reshape(batch, kv, group * time, d)
        scores = (rows @ keys[:, :, :stop].transpose(2, 3)) / math.sqrt(d)
        if time > 1:
            mask = torch.full((time, stop), -torch.inf, dtype=q.dtype, device=q.device).triu(start + 1)
            scores = scores + mask.repeat(group, 1)
        mixed = (scores.softmax(-1) @ values[:, :, :stop]).view(batch, kv, group, time, d)
        flat: Tensor = mixed.permute(0, 3, 1, 2, 4).reshape(batch * time, heads * d)
        return flat

    return attend


def _choose(last: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """Next ids (batch, 1) from logits (batch, vocab)."""
    if sampling.temperature <= 0:
        return last.argmax(-1, keepdim=True)
    chances = functional.softmax(last / sampling.temperature, dim=-1)
    return torch.multinomial(chances, 1, generator=generator)


def answer_ids(tree: Tree, prompt: Sequence[int], sampling: Sampling) -> Iterator[int]:
    """New token ids until the reply's end token (not given), `max_new_tokens`, or the end of the context.

    Raises ValueError if the first choice is not finite, naming no text.
    """
    base = tree.base
    generator = torch.Generator(device=base.device).manual_seed(sampling.seed)
    room = min(sampling.max_new_tokens, base.shape.context - len(prompt))
    read = _reader(tree, len(prompt) + max(room, 0))
    ids = list(prompt)
    for _ in range(room):
        # inference_mode is thread-local and must not stay on while the consumer runs
        with torch.inference_mode():
            last = read(ids)
            if not bool(last.isfinite().all()):
                raise ValueError("logits: not finite")
            ids = [int(_choose(last, sampling, generator))]
        if ids[0] == base.chat.stop_id:
            return
        yield ids[0]


def _reader(tree: Tree, capacity: int) -> Callable[[Sequence[int]], Tensor]:
    """What reads the next ids of one document and gives the logits (1, vocab) after them."""
    if tree.base.small:
        reader = Reader(tree, capacity)
        return lambda ids: torch.from_numpy(reader.read(ids)).unsqueeze(0)
    with torch.inference_mode():
        cache = Cache(tree, 1, capacity)
    return lambda ids: advance(tree, torch.tensor([list(ids)], device=tree.base.device), cache)


def stream(tree: Tree, turns: Sequence[ChatTurn], sampling: Sampling, stop: Sequence[str] = ()) -> Iterator[str]:
    """Pieces of the answer's text as they become whole characters; ends before the first of `stop`."""
    limit = max(tree.base.shape.context - sampling.max_new_tokens, 1)
    ids: list[int] = []
    given = ""
    for token in answer_ids(tree, tree.base.chat.prompt(turns, limit), sampling):
        ids.append(token)
        text = tree.base.chat.decode(ids)
        cut = min((found for word in stop if (found := text.find(word)) >= 0), default=-1)
        if cut >= 0:
            if cut > len(given):
                yield text[len(given) : cut]
            return
        held = max((size for word in stop for size in range(1, len(word)) if text.endswith(word[:size])), default=0)
        whole = text[: len(text) - held]
        if not whole.endswith("\ufffd") and len(whole) > len(given):
            yield whole[len(given) :]
            given = whole
    rest = tree.base.chat.decode(ids)[len(given) :]
    if rest:
        yield rest


def generate(tree: Tree, turns: Sequence[ChatTurn], sampling: Sampling, stop: Sequence[str] = ()) -> str:
    """The whole answer to a chat that ends with the customer's turn."""
    return "".join(stream(tree, turns, sampling, stop)).strip()


@torch.inference_mode()
def continuations(tree: Tree, prompt: Sequence[int], count: int, length: int, sampling: Sampling) -> list[list[int]]:
    """`count` sampled continuations of one prompt, `length` new ids each, decoded as one batch (self-made anchors)."""
    base = tree.base
    generator = torch.Generator(device=base.device).manual_seed(sampling.seed)
    cache = Cache(tree, count, len(prompt) + length)
    tokens = torch.tensor([list(prompt)] * count, device=base.device)
    made = []
    for _ in range(length):
        tokens = _choose(advance(tree, tokens, cache), sampling, generator)
        made.append(tokens)
    rows: list[list[int]] = torch.cat(made, dim=1).tolist() if made else [[] for _ in range(count)]
    return rows
