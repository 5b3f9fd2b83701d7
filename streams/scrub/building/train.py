"""Trains the tagger of names.py from reading.py's turns and writes data/tagger.bin.gz with its card.

    python -m streams.scrub.building.train --data DIR

Adam on the logistic loss over the candidates, plain numpy and scipy, one thread: the same machine, seed and versions
give the same bytes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from streams.scrub.building import network
from streams.scrub.building.reading import Turn, examples, named
from streams.scrub.building.weights import BATCH_SCALE, descend, of_rows, packed, publish
from streams.scrub.names import AROUND, PLACES, context_features, kind_of_surface, own_features, style_of, votes_of
from streams.scrub.network_features import EDGE, GLUED, HIDDEN
from streams.scrub.token_kinds import is_candidate

SEED = 20_251
EPOCHS = 4
BATCH = 2_048
"""Candidates."""
RATE = 4e-3
WIDTH, BROUGHT = 32, 24
"""Numbers of the hidden layer, and of what a word brings before it is told by place."""
MIN_COUNT = 10
"""Candidates or neighbours that a feature is seen in at least; one word counts for at most `MOST_OF_ONE`."""
MOST_OF_ONE = 40
MISSED = 1.5
"""Weight of a missed name against a false one: a leak is worse than a mask too many."""
KEPT, KEPT_PLACES = 0.85, 0.9
"""Shares of numbers and of whole neighbours that training keeps: the tagger may not lean on any one of them."""
Array = np.ndarray[Any, Any]


class Corpus(NamedTuple):
    """All candidates as flat arrays of surfaces."""

    features: list[str]
    """Those of neighbours first."""
    own: csr_matrix
    """Surface x feature."""
    context: csr_matrix
    """Surface x feature of neighbours."""
    word: Array
    """Surface of each candidate."""
    around: Array
    """(candidates, places): those of its neighbours."""
    style: Array
    follows: Array
    """1 behind a word of a name."""
    labels: Array


def corpus(turns: Iterable[Turn]) -> Corpus:
    """The candidates of turns with their features counted, the rare ones left out."""
    surfaces: dict[str, int] = {EDGE: 0}
    kinds, votes = [kind_of_surface(EDGE)], [0]
    word, around, style, follows, labels = [], [], [], [], []
    for turn in turns:
        for surface in turn.surfaces:
            if surfaces.setdefault(surface, len(surfaces)) == len(kinds):
                kinds.append(kind_of_surface(surface))
                votes.append(votes_of(surface.lstrip(GLUED + HIDDEN), kinds[-1]))
        ids = [0] * AROUND + [surfaces[surface] for surface in turn.surfaces] + [0] * AROUND
        of_turn = style_of(sum(votes[i] for i in ids))
        for i, label in enumerate(turn.names):
            at = i + AROUND
            if label >= 0 and is_candidate(kinds[ids[at]]):
                word.append(ids[at])
                around.append([ids[at + place] for place in PLACES])
                style.append(of_turn)
                follows.append(i > 0 and turn.names[i - 1] == 1)
                labels.append(label)
    words, near = np.array(word), np.array(around)
    own = _features(surfaces, kinds, words, own_features)
    context = _features(surfaces, kinds, near, context_features)
    first = _counted(context, near)
    names = [*first, *sorted(set(_counted(own, words)) - set(first))]
    tables = _table(own, names), _table(context, first)
    flat = (np.array(style), np.array(follows, np.float32), np.array(labels, np.float32))
    return Corpus(names, *tables, words, near, *flat)


def _features(
    surfaces: Iterable[str], kinds: list[int], used: Array, of: Callable[[str, int], Iterable[str]]
) -> list[list[str]]:
    """The features of each surface in use."""
    counts = np.bincount(used.ravel(), minlength=len(kinds))
    return [list(of(s, kind)) if n else [] for s, kind, n in zip(surfaces, kinds, counts, strict=True)]


def _counted(found: list[list[str]], used: Array) -> list[str]:
    """The features that are seen often enough, in order."""
    seen: Counter[str] = Counter()
    for names, count in zip(found, np.bincount(used.ravel(), minlength=len(found)).tolist(), strict=True):
        for name in names:
            seen[name] += min(count, MOST_OF_ONE)
    return sorted(name for name, count in seen.items() if count >= MIN_COUNT)


def _table(found: list[list[str]], names: list[str]) -> csr_matrix:
    index = {name: i for i, name in enumerate(names)}
    rows = [[index[name] for name in each if name in index] for each in found]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    columns = np.array([i for row in rows for i in row], np.int64)
    return csr_matrix((np.ones(len(columns), np.float32), columns, starts), shape=(len(rows), len(names)))


def start(found: Corpus, rng: np.random.Generator) -> dict[str, Array]:
    """Weights before training."""

    def drawn(rows: int, columns: int, scale: float) -> Array:
        return rng.normal(0, scale, (rows, columns)).astype(np.float32)

    return {
        "own": drawn(found.own.shape[1], WIDTH, 0.1),
        "context": drawn(found.context.shape[1], BROUGHT, 0.15),
        "near": drawn(len(PLACES) * BROUGHT, WIDTH, 0.12),
        "style": drawn(6, WIDTH, 0.1),
        "follows": drawn(1, WIDTH, 0.1),
        "bias": np.zeros(WIDTH, np.float32),
        "out": drawn(WIDTH, 1, 0.3),
        "out_bias": np.zeros(1, np.float32),
    }


class Kept(NamedTuple):
    """What training keeps of a batch: factors of what neighbours bring, of the word's own, of the hidden layer."""

    brought: Array
    own: Array
    hidden: Array


def kept(count: int, rng: np.random.Generator) -> Kept:
    """Drawn factors for a batch."""

    def drawn(columns: int, share: float) -> Array:
        return (rng.random((count, columns), np.float32) < share).astype(np.float32)

    brought = drawn(len(PLACES) * BROUGHT, KEPT) / np.float32(KEPT)
    brought *= np.repeat(drawn(len(PLACES), KEPT_PLACES), BROUGHT, axis=1)
    return Kept(brought, drawn(1, KEPT_PLACES), drawn(WIDTH, KEPT_PLACES) / np.float32(KEPT_PLACES))


class Pass(NamedTuple):
    """What a forward pass over some candidates leaves for the way back."""

    words: tuple[Array, Array]
    """Surfaces, and which of them each candidate is."""
    near: tuple[Array, Array]
    brought: Array
    hidden: Array
    active: Array
    scores: Array


def forward(weights: dict[str, Array], found: Corpus, chosen: Array, keep: Kept | None = None) -> Pass:
    """The scores of some candidates in nats, as names.Tagger computes them."""
    words, word = np.unique(found.word[chosen], return_inverse=True)
    near, place = np.unique(found.around[chosen].ravel(), return_inverse=True)
    brought = (found.context[near] @ weights["context"])[place.ravel()].reshape(len(chosen), -1)
    own = (found.own[words] @ weights["own"])[word]
    if keep:
        brought, own = brought * keep.brought, own * keep.own
    hidden = own + brought @ weights["near"] + weights["style"][found.style[chosen]] + weights["bias"]
    hidden += found.follows[chosen][:, None] * weights["follows"]
    active = np.maximum(hidden, 0)
    if keep:
        active = active * keep.hidden
    scores = (active @ weights["out"])[:, 0] + weights["out_bias"]
    return Pass((words, word), (near, place.ravel()), brought, hidden, active, scores)


def gradients(
    weights: dict[str, Array], found: Corpus, chosen: Array, keep: Kept | None = None
) -> tuple[float, dict[str, Array]]:
    """Loss a candidate, and the gradient of every weight times `BATCH_SCALE`, over some candidates."""
    seen = forward(weights, found, chosen, keep)
    is_name = found.labels[chosen] == 1
    chance = 1 / (1 + np.exp(-np.clip(seen.scores, -30, 30)))
    weight = np.where(is_name, MISSED, 1.0)
    loss = -float((weight * np.log(np.where(is_name, chance, 1 - chance) + 1e-9)).mean())
    error = ((chance - is_name) * weight / len(chosen) * BATCH_SCALE).astype(np.float32)[:, None]
    back: dict[str, Array] = {"out": seen.active.T @ error, "out_bias": error.sum(0)}
    d_hidden = (error @ weights["out"].T) * (seen.hidden > 0)
    if keep:
        d_hidden *= keep.hidden
    back["bias"] = d_hidden.sum(0)
    back["follows"] = (found.follows[chosen] @ d_hidden)[None]
    back["style"] = np.stack([d_hidden[found.style[chosen] == i].sum(0) for i in range(len(weights["style"]))])
    back["near"] = seen.brought.T @ d_hidden
    d_brought = d_hidden @ weights["near"].T
    d_own = d_hidden
    if keep:
        d_brought, d_own = d_brought * keep.brought, d_own * keep.own
    back["context"] = of_rows(found.context, seen.near, d_brought.reshape(-1, weights["context"].shape[1]))
    back["own"] = of_rows(found.own, seen.words, d_own)
    return loss, back


def train(found: Corpus, epochs: int = EPOCHS) -> Iterator[tuple[float, dict[str, Array]]]:
    """Mean loss and weights after each epoch."""
    rng = np.random.default_rng(SEED)
    weights = start(found, rng)
    yield from descend(
        weights, lambda chosen: gradients(weights, found, chosen, kept(len(chosen), rng)), rng, len(found.labels),
        epochs=epochs, batch=BATCH, most=RATE,
    )  # fmt: skip


COMMAND = "python -m streams.scrub.building.train --data DIR"
SOURCES = [
    (
        "lexicon.txt.gz: SCOWL (permissive), US census name lists (public domain), stopwords-iso (MIT), words of the "
        "translations in homeassistant (Apache-2.0), indico and django-allauth (MIT), django, django-helpdesk, "
        "django-oscar and wagtail (BSD), brands of name-suggestion-index (BSD-3-Clause) and simple-icons (CC0), towns "
        "of GeoNames (CC BY 4.0), names.txt and words.txt of this project"
    ),
    "people.txt, postal.txt, turns.txt, templates.txt, names.txt and words.txt of this project (its own licence)",
    network.SOURCES[-1],
]
"""What the weights were made of; no text of it is in them but ordinary words."""


def main() -> None:
    """Write weights and card beside the package's other data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    found = corpus(chain(examples(parser.parse_args().data, SEED), named(SEED)))
    *_, (loss, weights) = train(found)
    raw = packed(found.features, weights)
    counts = {"words": len(found.labels), "names": int(found.labels.sum()), "epochs": EPOCHS}
    publish("tagger", raw, {"command": COMMAND, "sources": SOURCES, **counts}, loss, weights)


if __name__ == "__main__":
    main()
