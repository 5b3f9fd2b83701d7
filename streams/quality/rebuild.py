"""Rebuild the filter's weights: `python -m streams.quality.rebuild --data DIR ... --out FILE` (needs scikit-learn).

    --data    folder of conv_*.jsonl.gz, quality.jsonl.gz, intents_banking77.jsonl.gz, langid.jsonl.gz
    --words   word -> frequency lists (.json.gz, pyspellchecker's format), English first
    --abuse   one abusive word or phrase a line
    --prose   the Markov model of encyclopedic prose of essential-generators (.json)
    --spam    folders of spam mails (SpamAssassin's public corpus)
    --ham     folders of mails of people on mailing lists (the same)

    --text    further texts as LABEL:SOURCE:FILE, one a line, or a .yml of dialogues

What went in, and under which licence, stands in DATA_CARD.md beside this file.
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.quality import features, invented
from streams.quality.classifier import CLASSES, Classifier
from streams.quality.features import HASH_BITS, SET_BITS, TRIGRAM_BITS, Floats, Ints, Vocabulary
from streams.quality.words import CLASSES as CLASSES_OF_WORDS

_MACHINE = re.compile(
    r"^>|^\s*(?:On .* wrote:|From:|To:|Date:|Subject:|http|<|_{5,}|-{5,}|={5,})|wrote:\s*$", re.MULTILINE
)


@dataclass(frozen=True)
class Row:
    """One text to learn from: its class and the source that is left out when that source is tested."""

    text: str
    label: str
    source: str
    weight: float = 1.0


@dataclass(frozen=True)
class Corpus:
    """Everything that the weights are made of."""

    rows: Sequence[Row]
    chats: Sequence[Row]
    """Turns of real conversations, all good."""
    words: Sequence[Sequence[str]]
    """Word lists, most frequent first."""
    abuse: Sequence[str]

    def without(self, source: str) -> Corpus:
        """The same without one source, for leave-one-source-out."""
        return replace(
            self,
            rows=[r for r in self.rows if not same_source(r.source, source)],
            chats=[r for r in self.chats if not same_source(r.source, source)],
        )


def same_source(one: str, other: str) -> bool:
    """True for equal sources, and if `one` was constructed from `other`."""
    return one == other or f"({other})" in one


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a gzip JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def read_corpus(
    data: Path,
    words: Sequence[Path],
    abuse: Path,
    prose: Path | None,
    mail: tuple[Sequence[Path], Sequence[Path]],
    texts: Sequence[str] = (),
) -> Corpus:
    """Read all sources; chats are turns of the conversation files and single customer queries."""
    rows = [
        Row(r["text"], r["label"], r["source"]) for r in read_jsonl(data / "quality.jsonl.gz") if r["label"] in CLASSES
    ]
    chats = [
        Row(turn["text"], "good", held["source"])
        for path in sorted(data.glob("conv_*.jsonl.gz"))
        for held in read_jsonl(path)
        for turn in held["turns"]
    ]
    chats += [Row(r["text"], "good", r["source"]) for r in read_jsonl(data / "intents_banking77.jsonl.gz")]
    rows += [Row(r["text"], "good", "langid", 0.5) for r in read_jsonl(data / "langid.jsonl.gz")]
    if prose is not None:
        rows += [Row(t, "non_dialogue", "prose", 0.5) for t in invented.prose(json.loads(prose.read_text()), 1500)]
    rows += [Row(t, "spam", "mail", 0.5) for folder in mail[0] for t in read_mail(folder)]
    rows += [Row(t, "good", "mail", 0.3) for folder in mail[1] for t in read_replies(folder)]
    words_of_abuse = abuse.read_text().split("\n")
    rows += [row for spec in texts for row in read_texts(spec, words_of_abuse)]
    return Corpus(rows, chats, [_word_list(path) for path in words], words_of_abuse)


def read_mail(folder: Path) -> list[str]:
    """Subject and body of each plain-text mail, as one or two chat-sized pieces."""
    pieces = []
    for path in sorted(p for p in folder.rglob("*.txt")):
        head, _, body = path.read_text(encoding="utf-8", errors="ignore").partition("\n\n")
        subject = next((line[9:] for line in head.splitlines() if line.lower().startswith("subject: ")), "")
        text = " ".join(invented.strip_tags(body).split())
        if len(text) > 60 and text.isascii():  # noqa: PLR2004 - less is a bounce or a picture
            pieces += [f"{subject}. {text[:250]}", text[200:500]]
    return [p for p in pieces if len(p) > 60]  # noqa: PLR2004 - as above


def read_replies(folder: Path) -> list[str]:
    """Paragraphs that people wrote themselves in mails: neither quoted nor signature, chat-sized, one or two a mail."""
    pieces = []
    for path in sorted(folder.rglob("*.txt")):
        _, _, body = path.read_text(encoding="utf-8", errors="ignore").partition("\n\n")
        own = [" ".join(part.split()) for part in body.split("\n-- ")[0].split("\n\n") if not _MACHINE.search(part)]
        pieces += [part for part in own if 20 < len(part) < 400 and part.isascii()][:2]  # noqa: PLR2004 - chat-sized
    return pieces


def read_texts(spec: str, abuse: Sequence[str]) -> list[Row]:
    """Rows of `LABEL:SOURCE:FILE`: the last tab-separated field of each line, or the turns of a .yml of dialogues."""
    label, source, name = spec.split(":", 2)
    text = Path(name).read_text(encoding="utf-8", errors="ignore")
    if name.endswith(".yml"):
        import yaml  # noqa: PLC0415 - only rebuilding needs it

        found = [str(turn) for dialogue in yaml.safe_load(text)["conversations"] for turn in dialogue]
    else:
        found = [html.unescape(line.rsplit("\t", 1)[-1]) for line in text.splitlines()]
    bad = {word.strip() for word in abuse}
    kept = [t for t in found if len(t) > 1 and (label != "good" or not bad.intersection(t.lower().split()))]
    return [Row(t, label, source, 0.4) for t in random.Random(5).sample(kept, min(len(kept), 1_800))]


def _word_list(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        counted: dict[str, int] = json.load(file)
    return [word for word, _ in sorted(counted.items(), key=lambda item: -item[1])]


def bit_set(hashes: Iterable[int]) -> npt.NDArray[np.uint8]:
    """(2^20 / 8,) uint8 with the bits of these hashes."""
    bits = np.zeros(1 << SET_BITS, dtype=np.uint8)
    bits[np.fromiter(hashes, dtype=np.int64) & ((1 << SET_BITS) - 1)] = 1
    return np.packbits(bits, bitorder="little")


def build_vocabulary(corpus: Corpus) -> Vocabulary:
    """Words and pairs that people use, and how likely each letter follows two others (add-0.1 smoothing)."""
    words: set[int] = set()
    for position, listed in enumerate(corpus.words):
        for word in listed[: 60_000 if position == 0 else 12_000]:
            words.update(features.read_words(features.fold(word)).hashes.tolist())
    pairs: Counter[int] = Counter()
    seen: Counter[int] = Counter()
    triples = np.zeros(1 << 24, dtype=np.float32)
    follow = np.zeros((2, CLASSES_OF_WORDS, CLASSES_OF_WORDS), dtype=np.float32)
    good = [*corpus.chats, *(r for r in corpus.rows if r.label in {"good", "spam", "toxic"} or r.source == "prose")]
    for row in good:
        folded = features.fold(row.text)
        read = features.read_words(folded)
        hashed = read.hashes
        np.add.at(follow[0], (read.classes[:-1], read.classes[1:]), 1)
        np.add.at(follow[1], (read.classes[:-2], read.classes[2:]), 1)
        seen.update(set(hashed.tolist()))
        pairs.update(set(features.pair_hashes(hashed).tolist()))
        _count_triples(triples, folded)
    for listed in corpus.words:
        for word in listed[:20_000]:
            _count_triples(triples, features.fold(word))
    words.update(h for h, n in seen.items() if n > 2)  # noqa: PLR2004 - a name or a slip occurs once or twice
    common = (h for h, n in pairs.items() if n > 1)
    abuse = (_only(word) for word in corpus.abuse)
    return Vocabulary(
        bit_set(words),
        bit_set(common),
        bit_set(h for h in abuse if h is not None),
        _trigram_table(triples),
        _log_odds(follow[0]),
        _log_odds(follow[1]),
    )


def _only(word: str) -> int | None:
    hashed = features.read_words(features.fold(word.strip())).hashes
    return int(hashed[0]) if len(hashed) == 1 else None


def _log_odds(follow: Floats) -> Floats:
    """(256, 256) log p(b | a) / p(b), smoothed and clipped: how much likelier a class is after another than anywhere."""
    smoothed = follow + 0.5 * follow.sum(axis=0, keepdims=True) / max(1.0, float(follow.sum())) * 20 + 1e-3
    given = smoothed / smoothed.sum(axis=1, keepdims=True)
    anywhere = smoothed.sum(axis=0) / smoothed.sum()
    return np.clip(np.log(given / anywhere[None, :]), -4, 4).astype(np.float32)


def _count_triples(triples: Floats, folded: bytes) -> None:
    codes = np.frombuffer(b" " + folded + b" ", dtype=np.uint8).astype(np.int64)
    np.add.at(triples, (codes[:-2] << 16) | (codes[1:-1] << 8) | codes[2:], 1)


def _trigram_table(triples: Floats) -> Floats:
    """(2^16,) log p(c | a b), shifted so that ordinary text has mean 0, where two triples meet the commoner one."""
    follow = triples.reshape(1 << 16, 256)
    likely = np.log((follow + 0.05) / (follow.sum(axis=1, keepdims=True) + 0.05 * 64)).reshape(-1)
    mean = float((likely * triples).sum() / triples.sum())
    table = np.full(1 << TRIGRAM_BITS, -4.0, dtype=np.float32)
    at = np.flatnonzero(triples)
    codes = np.stack([at >> 16, (at >> 8) & 255, at & 255]).astype(np.uint32)
    rows = (((codes[0] << 16) ^ (codes[1] << 8) ^ codes[2]) * np.uint32(2654435761)) >> np.uint32(32 - TRIGRAM_BITS)
    np.maximum.at(table, rows, np.clip((likely[at] - mean) / 2, -4, 2).astype(np.float32))
    return table


def training_rows(corpus: Corpus, seed: int) -> list[Row]:
    """Labelled rows, a bounded share of the chats of each source, and text of our own invention."""
    rng = random.Random(seed)
    rows = list(corpus.rows)
    by_source: dict[str, list[Row]] = {}
    for row in corpus.chats:
        by_source.setdefault(row.source, []).append(row)
    for held in by_source.values():
        rows += rng.sample(held, min(1_500, len(held)))
    plain = [r.text for r in corpus.chats if len(r.text) > 12]  # noqa: PLR2004 - shuffling two words makes no salad
    rows += [Row(t, label, f"invented:{label}", 0.7) for label, t in invented.texts(rng, plain)]
    return rows


def fit(corpus: Corpus, seed: int = 7, regularisation: float = 2.0) -> Classifier:
    """Train: inverse document frequency is folded into the weights, which are then stored as int8."""
    from scipy.sparse import csr_matrix, hstack  # noqa: PLC0415 - only rebuilding needs it
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - only rebuilding needs it

    vocabulary = build_vocabulary(corpus)
    rows = training_rows(corpus, seed)
    held = [features.extract(row.text, vocabulary) for row in rows]
    grams = _sparse(held)
    document_frequency = np.asarray((grams > 0).sum(axis=0)).ravel()
    idf = np.log((1 + len(rows)) / (1 + document_frequency)).astype(np.float32)
    idf[document_frequency < 2] = 0  # noqa: PLR2004 - what one text alone has teaches that text
    counts = np.stack([f.counts for f in held])
    design = hstack([grams.multiply(idf[None, :]) * 0.6, csr_matrix(counts)]).tocsr()
    labels = np.array([CLASSES.index(row.label) for row in rows])
    per_class = np.bincount(labels, minlength=len(CLASSES))
    weights = np.array([r.weight for r in rows]) * (len(rows) / len(CLASSES) / per_class[labels]) ** 0.5
    model = LogisticRegression(C=regularisation, max_iter=300, tol=1e-3)
    model.fit(design, labels, sample_weight=weights)
    learned = model.coef_.T.astype(np.float32)
    table = learned[: 1 << HASH_BITS] * (idf * 0.6)[:, None]
    scale = (np.abs(table).max(axis=0) / 127).astype(np.float32)
    return Classifier(
        vocabulary,
        np.round(table / scale).astype(np.int8),
        scale,
        learned[1 << HASH_BITS :],
        model.intercept_.astype(np.float32),
    )


def _sparse(held: Sequence[features.Features]) -> Any:  # noqa: ANN401 - scipy has no types
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - only rebuilding needs it

    lengths = [len(f.rows) for f in held]
    values = np.repeat([1 / max(1.0, n**0.5) for n in lengths], lengths).astype(np.float32)
    columns: Ints = np.concatenate([f.rows for f in held])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    matrix = csr_matrix((values, columns.astype(np.int32), starts), shape=(len(held), 1 << HASH_BITS))
    matrix.sum_duplicates()
    return matrix


def main(argv: Sequence[str] | None = None) -> int:
    """Rebuild and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--words", type=Path, nargs="+", required=True)
    parser.add_argument("--abuse", type=Path, required=True)
    parser.add_argument("--prose", type=Path)
    parser.add_argument("--spam", type=Path, nargs="*", default=[])
    parser.add_argument("--ham", type=Path, nargs="*", default=[])
    parser.add_argument("--text", nargs="*", default=[])
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    corpus = read_corpus(args.data, args.words, args.abuse, args.prose, (args.spam, args.ham), args.text)
    fit(corpus).save(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
