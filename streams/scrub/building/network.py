"""Trains the network of network.py from reading.py's turns and writes data/network.bin.gz with its card.

    python -m streams.scrub.building.network --data DIR

Adam on the logistic loss of both labels, plain numpy and scipy, one thread: the same machine, seed and versions give
the same bytes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from streams.scrub.building.reading import Turn, examples
from streams.scrub.building.weights import BATCH_SCALE, descend, of_rows, packed, publish
from streams.scrub.network import BEYOND, FAR, NEAR, REACH, SECOND, WIDTH
from streams.scrub.network_features import EDGE, GLUED, features_of

SEED = 20_251
EPOCHS = 4
BATCH = 256
"""Turns."""
RATE = 4e-3
MIN_COUNT = 20
"""Tokens that a feature is seen in at least, by surface and use."""
MISSED = 1.5
"""Weight of a missed part against a false one."""
Array = np.ndarray[Any, Any]


class Corpus(NamedTuple):
    """All turns as flat arrays: a row of `surfaces` for each token, edges on both sides of a turn."""

    features: list[str]
    table: csr_matrix
    """Surface x feature."""
    tokens: list[Array]
    """Surface of each token of a turn."""
    labels: list[Array]
    """(tokens, 2): 1, 0, -1."""
    pieces: list[Array]
    """Which piece between spaces each token is of; without the edges."""
    numbers: Array
    """Surfaces that hold a digit."""


def corpus(turns: list[Turn]) -> Corpus:
    """Turns with their features counted, the rare ones left out."""
    surfaces: dict[str, int] = {EDGE: 0}
    counts: Counter[int] = Counter()
    tokens, labels, pieces = [], [], []
    for turn in turns:
        ids = [surfaces.setdefault(s, len(surfaces)) for s in turn.surfaces]
        counts.update(ids)
        tokens.append(np.array([0, *ids, 0]))
        apart = [
            s[0] not in _INSIDE and before[:1] != "\n"
            for before, s in zip(("", *turn.surfaces), turn.surfaces, strict=False)
        ]
        pieces.append(np.cumsum([i > 0 and begins for i, begins in enumerate(apart)], dtype=np.int64))
        labels.append(np.array([(-1, -1), *zip(turn.names, turn.addresses, strict=True), (-1, -1)]))
    found = [features_of(surface) for surface in surfaces]
    seen: Counter[str] = Counter()
    for i, names in enumerate(found):
        for name in names:
            seen[name] += min(counts[i], 40) if i else MIN_COUNT
    features = sorted(name for name, count in seen.items() if count >= MIN_COUNT)
    index = {name: i for i, name in enumerate(features)}
    rows = [[index[n] for n in names if n in index] for names in found]
    lengths = np.array([len(r) for r in rows])
    table = csr_matrix(
        (
            np.ones(lengths.sum(), np.float32),
            np.array([f for r in rows for f in r]),
            np.concatenate([[0], np.cumsum(lengths)]),
        ),
        shape=(len(rows), len(features)),
    )
    numbers = np.array([not HINTING.isdisjoint(names) for names in found])
    return Corpus(features, table, tokens, labels, pieces, numbers)


HINTING = frozenset({"number", "in numeral", "in suffix", "in prefix", "in tail", "in unit", "in house", "compound"})
"""Features of the tokens that are looked at first."""
_INSIDE = frozenset({GLUED, "\n"})
"""What begins a surface that goes on with its piece."""


def start(features: int, rng: np.random.Generator) -> dict[str, Array]:
    """Weights before training."""

    def drawn(rows: int, columns: int, scale: float) -> Array:
        return rng.normal(0, scale, (rows, columns)).astype(np.float32)

    return {
        "rows": drawn(features, WIDTH, 0.1),
        "near": drawn(WIDTH, len(NEAR) * WIDTH, 0.15),
        "near_bias": np.zeros(WIDTH, np.float32),
        "far": drawn(WIDTH, len(FAR) * SECOND, 0.15),
        "pool": drawn(WIDTH, SECOND, 0.15),
        "far_bias": np.zeros(SECOND, np.float32),
        "out": drawn(WIDTH + SECOND, 2, 0.2),
        "out_bias": np.zeros(2, np.float32),
    }


def _shifted(blocks: Array, taps: tuple[int, ...]) -> Array:
    """The sum over taps of the block of each that stands there; (tokens, taps x width) -> (tokens, width)."""
    width = blocks.shape[1] // len(taps)
    total = np.zeros((len(blocks), width), np.float32)
    for k, tap in enumerate(taps):
        block = blocks[:, k * width : (k + 1) * width]
        if tap >= 0:
            total[: len(total) - tap] += block[tap:]
        else:
            total[-tap:] += block[:tap]
    return total


def _unshifted(gradient: Array, taps: tuple[int, ...]) -> Array:
    """The transpose of `_shifted`."""
    width = gradient.shape[1]
    blocks = np.zeros((len(gradient), len(taps) * width), np.float32)
    for k, tap in enumerate(taps):
        block = blocks[:, k * width : (k + 1) * width]
        if tap >= 0:
            block[tap:] = gradient[: len(gradient) - tap]
        else:
            block[:tap] = gradient[-tap:]
    return blocks


def _batch(found: Corpus, chosen: Array) -> tuple[Array, Array, Array, Array]:
    """Surfaces, labels, mask of real tokens and owner of each, of turns with empty places between them."""
    tokens, labels, owner = [], [], []
    for k, i in enumerate(chosen):
        tokens += [found.tokens[i], np.full(BEYOND, -1)]
        labels += [found.labels[i], np.full((BEYOND, 2), -1)]
        owner.append(np.full(len(found.tokens[i]) + BEYOND, k))
    flat = np.concatenate(tokens)
    return flat, np.concatenate(labels), flat >= 0, np.concatenate(owner)


class Pass(NamedTuple):
    """What a forward pass over some turns leaves for the way back."""

    labels: Array
    real: Array
    """Which places hold a token."""
    owner: Array
    """Which turn each place is of."""
    surfaces: Array
    use: Array
    """Which of the surfaces stands at each real place."""
    rows: Array
    first: Array
    mean: Array
    starts: Array
    lengths: Array
    second: Array
    scores: Array


def forward(weights: dict[str, Array], found: Corpus, chosen: Array, kept: np.random.Generator | None = None) -> Pass:
    """The scores of some turns, as network.Network.scores computes them; `kept` draws which numbers training keeps."""
    flat, labels, real, owner = _batch(found, chosen)
    surfaces, use = np.unique(flat[real], return_inverse=True)
    rows = np.zeros((len(flat), WIDTH), np.float32)
    rows[real] = (found.table[surfaces] @ weights["rows"])[use]
    mask = real[:, None].astype(np.float32)
    if kept is not None:
        rows *= (kept.random(rows.shape, np.float32) < KEPT) * np.float32(1 / KEPT)
    first = np.maximum(_shifted(rows @ weights["near"], NEAR) + weights["near_bias"], 0) * mask
    lengths = np.bincount(owner, weights=real).astype(np.float32)[:, None]
    starts = np.flatnonzero(np.diff(owner, prepend=-1))
    mean = np.add.reduceat(first, starts) / lengths
    pooled = mean @ weights["pool"] + weights["far_bias"]
    second = np.maximum(_shifted(first @ weights["far"], FAR) + pooled[owner], 0) * mask
    scores = np.concatenate([first, second], axis=1) @ weights["out"] + weights["out_bias"]
    return Pass(labels, real, owner, surfaces, use, rows, first, mean, starts, lengths, second, scores)


def gradients(
    weights: dict[str, Array], found: Corpus, chosen: Array, kept: np.random.Generator | None = None
) -> tuple[float, dict[str, Array]]:
    """Loss a label, and the gradient of every weight times `BATCH_SCALE`, over some turns."""
    seen = forward(weights, found, chosen, kept)
    chance = 1 / (1 + np.exp(-np.clip(seen.scores, -30, 30)))
    is_part = seen.labels == 1
    weight = (seen.labels >= 0) * np.where(is_part, MISSED, 1.0)
    total = max(1.0, float((seen.labels >= 0).sum()))
    loss = -float((weight * np.log(np.where(is_part, chance, 1 - chance) + 1e-9)).sum()) / total
    error = ((chance - is_part) * weight / total * BATCH_SCALE).astype(np.float32)
    both = np.concatenate([seen.first, seen.second], axis=1)
    back: dict[str, Array] = {"out": both.T @ error, "out_bias": error.sum(0)}
    d_both = error @ weights["out"].T
    d_second = d_both[:, WIDTH:] * (seen.second > 0)
    d_pooled = np.add.reduceat(d_second, seen.starts)
    back["pool"], back["far_bias"] = seen.mean.T @ d_pooled, d_pooled.sum(0)
    d_blocks = _unshifted(d_second, FAR)
    back["far"] = seen.first.T @ d_blocks
    d_mean = ((d_pooled @ weights["pool"].T) / seen.lengths)[seen.owner]
    d_first = (d_both[:, :WIDTH] + d_blocks @ weights["far"].T + d_mean) * (seen.first > 0)
    back["near_bias"] = d_first.sum(0)
    d_blocks = _unshifted(d_first, NEAR)
    back["near"] = seen.rows.T @ d_blocks
    d_rows = (d_blocks @ weights["near"].T)[seen.real]
    if kept is not None:
        d_rows *= (seen.rows[seen.real] != 0) * np.float32(1 / KEPT)
    back["rows"] = of_rows(found.table, (seen.surfaces, seen.use), d_rows)
    return loss, back


KEPT = 0.8
"""Share of a token's numbers that training keeps: the network may not lean on any one of them."""


def hints(weights: dict[str, Array], found: Corpus) -> dict[str, Array]:
    """The first look: what pieces near one with a digit say of its being part of an address; (width, places)."""
    rows = found.table @ weights["rows"]
    windows, labels = [], []
    for tokens, marks, piece in zip(
        found.tokens[::HINTED], found.labels[::HINTED], found.pieces[::HINTED], strict=True
    ):
        inner, wanted = tokens[1:-1], marks[1:-1, 1]
        if not len(inner) or not (numbered := sorted(set(piece[found.numbers[inner]].tolist()))):
            continue
        pieces = np.zeros((piece[-1] + 1 + 2 * REACH, WIDTH), np.float32)
        np.add.at(pieces, piece + REACH, rows[inner])
        for at in numbered:
            of_piece = wanted[piece == at]
            if of_piece.min() >= 0:
                windows.append(pieces[at : at + 2 * REACH + 1].ravel())
                labels.append(of_piece.max())
    seen, wanted = np.stack(windows), np.array(labels, np.float32)
    weight, bias = np.zeros(seen.shape[1], np.float32), np.zeros(1, np.float32)
    squares, rng = np.full(len(weight), 1e-2, np.float32), np.random.default_rng(SEED)
    for _ in range(HINT_STEPS):
        chosen = rng.integers(0, len(seen), 2_000)
        chance = 1 / (1 + np.exp(-np.clip(seen[chosen] @ weight + bias, -30, 30)))
        error = (chance - wanted[chosen]) * np.where(wanted[chosen] == 1, HINT_MISSED, 1.0)
        gradient = (error @ seen[chosen] / len(chosen)).astype(np.float32)
        squares += gradient**2
        weight -= 0.1 * gradient / np.sqrt(squares)
        bias -= 0.1 * error.mean()
    return {"hint": weight.reshape(-1, WIDTH).T.copy(), "hint_bias": bias}


HINTED, HINT_STEPS, HINT_MISSED = 4, 1_500, 4.0
"""Each fourth turn, steps, and the weight of a missed number."""


def train(found: Corpus, epochs: int = EPOCHS) -> Iterator[tuple[float, dict[str, Array]]]:
    """Mean loss and weights after each epoch."""
    rng = np.random.default_rng(SEED)
    weights = start(len(found.features), rng)
    yield from descend(
        weights, lambda chosen: gradients(weights, found, chosen, rng), rng, len(found.tokens),
        epochs=epochs, batch=BATCH, most=RATE,
    )  # fmt: skip


COMMAND = "python -m streams.scrub.building.network --data DIR"
SOURCES = [
    "postal.txt, turns.txt, templates.txt, names.txt and words.txt of this project (its own licence)",
    "lexicon.txt.gz, whose sources tagger.card.json names: words as features, parts of made-up streets and towns",
    (
        "conv_star, conv_small_retail_it (MIT), conv_cucom (Apache-2.0), conv_taskmaster4, conv_irc_ubuntu "
        "(CC-BY-4.0), quality_contrast (SMS Spam Collection ham, surge-ai harmless comments, MIT): sentences as "
        "carriers, names replaced"
    ),
]
"""What the weights were made of; no text of it is in them but ordinary words."""


def main() -> None:
    """Write weights and card beside the package's other data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    found = corpus(list(examples(parser.parse_args().data, SEED)))
    *_, (loss, weights) = train(found)
    raw = packed(found.features, {**weights, **hints(weights, found)})
    counts = {"turns": len(found.tokens), "tokens": sum(map(len, found.tokens)), "epochs": EPOCHS}
    publish("network", raw, {"command": COMMAND, "sources": SOURCES, **counts}, loss, weights)


if __name__ == "__main__":
    main()
