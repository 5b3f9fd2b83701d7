"""A module tree as the probes see it: greedy answers, and likelihoods of continuations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from learner.adapter import Sampling, Tree, generate
from learner.adapter.packed import states_at
from learner.adapter.padded import logits
from learner.probes.voice import Continuation, Continued
from streams.events import Turn

MICRO_BATCH = 16


@dataclass(frozen=True)
class TreeVoice:
    """One version's tree; answers end after `max_new_tokens`."""

    tree: Tree
    max_new_tokens: int = 48

    def answers(self, prompts: Sequence[Sequence[Turn]]) -> list[str]:
        """Greedy answers."""
        sampling = Sampling(max_new_tokens=self.max_new_tokens)
        return [generate(self.tree, prompt, sampling) for prompt in prompts]

    def continued(self, continuations: Sequence[Continuation]) -> list[Continued]:
        """Summed nats of each continuation's tokens, and whether each is the first choice."""
        base = self.tree.base
        rows, starts = [], []
        for one in continuations:
            text = base.chat.text_ids(one.text)
            limit = base.shape.context - len(text)
            before = [*base.chat.prompt(one.turns), *base.chat.text_ids(one.prefix)][-limit:]
            rows.append([*before, *text])
            starts.append(len(before))
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        found: dict[int, Continued] = {}
        for at in range(0, len(order), MICRO_BATCH):
            chosen = order[at : at + MICRO_BATCH]
            found |= zip(chosen, self._rows([rows[n] for n in chosen], [starts[n] for n in chosen]), strict=True)
        return [found[at] for at in range(len(rows))]

    @torch.inference_mode()
    def _rows(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Continued]:
        base = self.tree.base
        places = [range(start - 1, len(ids) - 1) for ids, start in zip(rows, starts, strict=True)]
        predicted = logits(base, states_at(base, self.tree.low, rows, places))
        wanted = torch.tensor([ids[at + 1] for ids, found in zip(rows, places, strict=True) for at in found])
        wanted = wanted.to(base.device)
        losses = functional.cross_entropy(predicted, wanted, reduction="none").double()
        first = predicted.argmax(-1) == wanted
        counts = [len(ids) - start for ids, start in zip(rows, starts, strict=True)]
        return [
            Continued(float(loss.sum()), len(loss), bool(hit.all()))
            for loss, hit in zip(torch.split(losses, counts), torch.split(first, counts), strict=True)
        ]
