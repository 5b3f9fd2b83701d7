"""Trains the tagger and writes data/tagger.json.gz and its data card.

    python -m streams.scrub.building.train --data DIR

Logistic regression over the features of names.py, AdaGrad, one seed: same inputs and versions, same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from streams.scrub.building.corpus import Example, sentences
from streams.scrub.building.lexicon import DATA
from streams.scrub.names import as_neighbour, ngrams, pack, style_of, votes_of
from streams.scrub.token_kinds import END, GROUPS, KINDS, START, group_of, is_candidate, shape_of

SEED = 20_250
EPOCHS = 6
BATCH = 512
RATE = 0.25
DECAY = 2e-6
MIN_COUNT = 4
"""Features seen less often are left out."""
SCALE = 64
"""Weights are stored as integers: 1/64 of a nat."""
BIAS_POSITIVE = 1.6
"""Weight of a missed name against a false one: a leak is worse than a mask too many."""


COMMAND = "python -m streams.scrub.building.train --data DIR"
SOURCES = [
    (
        "lexicon.txt.gz: SCOWL (permissive), US census name lists (public domain), stopwords-iso (MIT), words of the "
        "translations in homeassistant (Apache-2.0), indico and django-allauth (MIT), django, django-helpdesk, "
        "django-oscar and wagtail (BSD), brands of name-suggestion-index (BSD-3-Clause) and simple-icons (CC0), towns "
        "of GeoNames (CC BY 4.0), names.txt and words.txt of this project"
    ),
    "templates.txt and names.txt of this project (its own licence)",
    (
        "conv_star, conv_small_retail_it (MIT), conv_cucom (Apache-2.0), conv_taskmaster4 (CC-BY-4.0), "
        "quality_contrast (SMS Spam Collection ham, surge-ai harmless comments, MIT): sentences as carriers, "
        "names replaced"
    ),
]
"""What the weights were made of; no text of it is in them but words and pairs of words."""


def features(words: list[str], kinds: list[int], at: int, token: str, style: int, *, follows: bool) -> Iterator[str]:
    """The names of the weights that names.score adds up."""
    kind = kinds[at]
    group = group_of(kind)
    before, after = words[at - 1], words[at + 1]
    yield f"kind|{kind}"
    yield f"styles|{pack(style, kind, 0)}"
    yield f"before|{before}|{group}"
    yield f"before2|{words[at - 2]}|{group}"
    yield f"after|{after}|{group}"
    yield f"after2|{words[at + 2]}|{group}"
    yield f"pair_before|{words[at - 2]} {before}|{group}"
    yield f"pair_after|{after} {words[at + 2]}|{group}"
    yield f"kinds_before|{pack(kinds[at - 1], kind, follows)}"
    yield f"kinds_after|{pack(kind, kinds[at + 1], 0)}"
    yield f"around|{pack(kinds[at - 1], kinds[at + 1], group)}"
    for gram in ngrams(token, min(shape_of(token), 3)):
        yield f"letters|{gram}"


def _instances(examples: list[Example]) -> Iterator[tuple[list[str], int]]:
    for tokens, kinds, labels in examples:
        words = ["", "", *map(as_neighbour, tokens, kinds), "", ""]
        padded = [START, START, *kinds, END, END]
        style = style_of(sum(map(votes_of, tokens, kinds)))
        for i, label in enumerate(labels):
            if label >= 0 and is_candidate(kinds[i]):
                follows = i > 0 and labels[i - 1] == 1
                yield list(features(words, padded, i + 2, tokens[i], style, follows=follows)), label


def train(data: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Weights by feature, as integers, and what they were trained on."""
    examples = list(sentences(data, SEED))
    instances = list(_instances(examples))
    counts = Counter(f for found, _ in instances for f in found)
    index = {f: i for i, f in enumerate(sorted(f for f, n in counts.items() if n >= MIN_COUNT))}
    rows = [[index[f] for f in found if f in index] for found, _ in instances]
    labels = np.array([label for _, label in instances], dtype=np.float64)
    weights = _fit(rows, labels, len(index))
    table = {f: int(np.rint(weights[i] * SCALE)) for f, i in index.items()}
    stats = {"sentences": len(examples), "words": len(instances), "names": int(labels.sum())}
    return {f: w for f, w in table.items() if w}, stats


def _fit(rows: list[list[int]], labels: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """AdaGrad on the logistic loss, with decay; plain numpy, so that the result is the same on every machine."""
    rng = np.random.default_rng(SEED)
    lengths = np.array([len(r) for r in rows])
    flat = np.array([f for r in rows for f in r], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    weights, squares = np.zeros(size), np.full(size, 1e-2)
    for _ in range(EPOCHS):
        order = rng.permutation(len(rows))
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            ids = np.concatenate([flat[starts[i] : starts[i] + lengths[i]] for i in chosen])
            owner = np.repeat(np.arange(len(chosen)), lengths[chosen])
            scores = np.bincount(owner, weights=weights[ids], minlength=len(chosen))
            target = labels[chosen]
            error = (1 / (1 + np.exp(-np.clip(scores, -30, 30))) - target) * np.where(target == 1, BIAS_POSITIVE, 1.0)
            gradient = np.bincount(ids, weights=error[owner], minlength=size) + DECAY * len(chosen) * weights
            squares += gradient**2
            weights -= RATE * gradient / np.sqrt(squares)
    return weights


def packed(table: dict[str, int]) -> bytes:
    """The weights in the shape of names.Weights, as JSON, compressed; the same bytes for the same table."""
    model: dict[str, Any] = {"kind": [0] * KINDS}
    for name in (
        "before",
        "before2",
        "after",
        "after2",
        "pair_before",
        "pair_after",
        "kinds_before",
        "kinds_after",
        "around",
        "styles",
        "letters",
    ):
        model[name] = {}
    for feature in sorted(table):
        name, _, key = feature.partition("|")
        if name == "kind":
            model["kind"][int(key)] = table[feature]
        elif name in {"kinds_before", "kinds_after", "around", "styles", "letters"}:
            model[name][key] = table[feature]
        else:
            word, _, group = key.rpartition("|")
            model[name].setdefault(word, [0] * GROUPS)[int(group)] = table[feature]
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0, compresslevel=9) as stream:
        stream.write(json.dumps(model, separators=(",", ":"), sort_keys=True).encode())
    return out.getvalue()


def main() -> None:
    """Write weights and card beside the package's other data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    table, stats = train(args.data)
    raw = packed(table)
    (DATA / "tagger.json.gz").write_bytes(raw)
    card = {
        "command": COMMAND,
        "sources": SOURCES,
        **stats,
        "weights": len(table),
        "bytes": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }
    (DATA / "tagger.card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(json.dumps(card))  # noqa: T201 - a script's result


if __name__ == "__main__":
    main()
