"""Augmented copies of what a step rehearses, made while its batch is drawn and never stored.

A copy stands under its parent's key, so erasure, lineage and the log of draws name it with its parent. Fresh samples
have no copies: the guard has not judged them yet, and a rated or edited sample has none either, since ratings keep a
share of their own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from learner.adapter.chat import Chat
from learner.back_translation import BackTranslation
from learner.batch import Document, Drawn, documents
from learner.config import TrainConfig
from streams.augment import AugmentConfig, Say, augment
from streams.events import Sample
from streams.replay.mix import draw_seed


class Copies:
    """Makes the copies of one line's steps."""

    def __init__(self, chat: Chat, config: TrainConfig, how: AugmentConfig) -> None:
        self._chat = chat
        self._config = config
        self._how = how
        self.say: Say | None = None
        """What says a question in other words, for `augment.generated`, where no translation is configured."""
        self._translated: Say | None = BackTranslation(*how.translation) if how.translation else None

    def of(self, rehearsed: Mapping[str, Sample], chosen: Sequence[Document], run: int, step: int) -> list[Document]:
        """Copies of the samples (by key) among the `chosen` documents, within their share of the whole step."""
        share, tokens = self._how.token_share, sum(len(document.ids) for document in chosen)
        room = min(share / (1 - share) * tokens, self._config.step_tokens - tokens)
        parents = {d.drawn.key: d.drawn for d in chosen if d.drawn.key in rehearsed and not d.drawn.signal}
        found: list[Document] = []
        for number in range(self._how.copies):
            for key, parent in parents.items():
                seed = draw_seed(run, step, f"copy {number} of {key}") or 1
                made = self.again(rehearsed[key], replace(parent, component="copy", seed=seed))
                size = sum(len(document.ids) for document in made)
                if size <= room:
                    room -= size
                    found += made
        return found

    def again(self, sample: Sample, drawn: Drawn) -> list[Document]:
        """The documents of the copy that `drawn.seed` makes of a sample; none if it would not differ from it."""
        made = augment(sample, replace(self._how, copies=1), random.Random(drawn.seed), self._translated or self.say)
        return [document for copy in made for document in documents(self._chat, copy, drawn, self._config)]
