"""A module tree as the probes see it: greedy answers, and likelihoods of continuations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from learner.adapter import Sampling, Tree, generate
from learner.adapter.generate import continued_logits
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
        shared: dict[tuple[int, ...], list[int]] = defaultdict(list)
        texts = [base.chat.text_ids(one.text) for one in continuations]
        for at, one in enumerate(continuations):
            before = [*base.chat.prompt(one.turns), *base.chat.text_ids(one.prefix)]
            shared[tuple(before[-(base.shape.context - len(texts[at])) :])].append(at)
        found: dict[int, Continued] = {}
        alone = [(prefix, places[0]) for prefix, places in shared.items() if len(places) == 1]
        alone.sort(key=lambda one: len(one[0]))
        for start in range(0, len(alone), MICRO_BATCH):
            chosen = alone[start : start + MICRO_BATCH]
            rows = [[*prefix, *texts[at]] for prefix, at in chosen]
            found |= zip((at for _, at in chosen), self._rows(rows, [len(one[0]) for one in chosen]), strict=True)
        for prefix, places in shared.items():
            if len(places) > 1:
                found |= zip(places, self._behind(prefix, [texts[at] for at in places]), strict=True)
        return [found[at] for at in range(len(continuations))]

    def _behind(self, prefix: Sequence[int], texts: Sequence[Sequence[int]]) -> list[Continued]:
        """Continuations of one prefix, which is read once: thirty variants of a value cost little more than one."""
        sizes = [len(text) for text in texts]
        table = continued_logits(self.tree, prefix, texts)
        predicted = torch.cat([table[row, :size] for row, size in enumerate(sizes)])
        return _judged(predicted, [token for text in texts for token in text], sizes)

    @torch.inference_mode()
    def _rows(self, rows: Sequence[Sequence[int]], starts: Sequence[int]) -> list[Continued]:
        base = self.tree.base
        places = [range(start - 1, len(ids) - 1) for ids, start in zip(rows, starts, strict=True)]
        predicted = logits(base, states_at(base, self.tree.low, rows, places))
        wanted = [ids[at + 1] for ids, found in zip(rows, places, strict=True) for at in found]
        return _judged(predicted, wanted, [len(found) for found in places])


def _judged(predicted: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[Continued]:
    """How likely the tokens were under logits (L, vocab), cut into continuations of `counts` tokens."""
    wanted = torch.tensor(tokens, device=predicted.device)
    losses = functional.cross_entropy(predicted, wanted, reduction="none").double()
    first = predicted.argmax(-1) == wanted
    return [
        Continued(float(loss.sum()), len(loss), bool(hit.all()))
        for loss, hit in zip(torch.split(losses, list(counts)), torch.split(first, list(counts)), strict=True)
    ]
