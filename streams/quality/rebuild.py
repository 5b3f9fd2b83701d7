"""Rebuild the filter's weights: `python -m streams.quality.rebuild --data DIR ... --out FILE` (needs scikit-learn).

    --data    folder of conv_*.jsonl.gz, quality.jsonl.gz, intents_banking77.jsonl.gz, langid.jsonl.gz
    --words   word -> frequency lists (.json.gz, pyspellchecker's format), English first
    --abuse   one abusive word or phrase a line
    --prose   the Markov model of encyclopedic prose of essential-generators (.json)
    --spam    folders of spam mails (SpamAssassin's public corpus)
    --ham     folders of mails of people on mailing lists (the same)
    --letters EnglishVectorizer.bf and EnglishModel.bf of toxicityclassifier 1.0.1

    --text    further texts as LABEL:SOURCE:FILE, one a line, or a .yml of dialogues

What went in, and under which licence, stands in DATA_CARD.md beside this file.
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import pickle
import random
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, hstack, vstack
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import LogisticRegression

from streams.quality import features, invented
from streams.quality.classifier import CLASSES, Classifier
from streams.quality.features import HASH_BITS, SET_BITS, TRIGRAM_BITS, Floats, Ints, Vocabulary
from streams.quality.letters import letters
from streams.quality.words import CLASSES as CLASSES_OF_WORDS

_MACHINE = re.compile(
    r"^>|^\s*(?:On .* wrote:|From:|To:|Date:|Subject:|http|<|_{5,}|-{5,}|={5,})|wrote:\s*$", re.MULTILINE
)

SHORT_MAIL = 60
"""Characters; a mail with less is a bounce or a picture."""
CHAT_SIZED = range(21, 400)
"""Characters of a paragraph that could be a chat message."""
SALAD_WORDS = 3
"""Shuffling two words makes no salad."""
NGRAM_SCALE = 0.6
"""How much n-grams weigh against robust counts under the same regularisation: less generalises, more remembers."""


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
    letters: Mapping[str, float]
    """Weights of n-grams inside words, from a model of abuse that saw none of the sources here."""

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


def arguments(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Where the training text lies; only `--data` is always needed."""
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--words", type=Path, nargs="+", required=required)
    parser.add_argument("--abuse", type=Path, required=required)
    parser.add_argument("--prose", type=Path)
    parser.add_argument("--spam", type=Path, nargs="*", default=[])
    parser.add_argument("--ham", type=Path, nargs="*", default=[])
    parser.add_argument("--letters", type=Path, nargs=2, required=required)
    parser.add_argument("--text", nargs="*", default=[])


def read_corpus(args: argparse.Namespace) -> Corpus:
    """Read all sources; chats are turns of the conversation files and single customer queries."""
    data: Path = args.data
    abuse = args.abuse.read_text().split("\n")
    labelled = read_jsonl(data / "quality.jsonl.gz")
    rows = [Row(r["text"], r["label"], r["source"]) for r in labelled if r["label"] in CLASSES]
    rows += [Row(r["text"], "good", "langid", 0.5) for r in read_jsonl(data / "langid.jsonl.gz")]
    if args.prose is not None:
        model = json.loads(args.prose.read_text())
        rows += [Row(t, "non_dialogue", "prose", 0.5) for t in invented.prose(model, 1500)]
    rows += [Row(t, "spam", "mail", 0.5) for folder in args.spam for t in read_mail(folder)]
    rows += [Row(t, "good", "mail", 0.3) for folder in args.ham for t in read_replies(folder)]
    rows += [row for spec in args.text for row in read_texts(spec, abuse)]
    chats = [
        Row(turn["text"], "good", held["source"])
        for path in sorted(data.glob("conv_*.jsonl.gz"))
        for held in read_jsonl(path)
        for turn in held["turns"]
    ]
    chats += [Row(r["text"], "good", r["source"]) for r in read_jsonl(data / "intents_banking77.jsonl.gz")]
    return Corpus(rows, chats, [_word_list(path) for path in args.words], abuse, read_letters(*args.letters))


def read_mail(folder: Path) -> list[str]:
    """Subject and body of each plain-text mail, as one or two chat-sized pieces."""
    pieces = []
    for path in sorted(p for p in folder.rglob("*.txt")):
        head, _, body = path.read_text(encoding="utf-8", errors="ignore").partition("\n\n")
        subject = next((line[9:] for line in head.splitlines() if line.lower().startswith("subject: ")), "")
        text = " ".join(invented.strip_tags(body).split())
        if len(text) > SHORT_MAIL and text.isascii():
            pieces += [f"{subject}. {text[:250]}", text[200:500]]
    return [p for p in pieces if len(p) > SHORT_MAIL]


def read_replies(folder: Path) -> list[str]:
    """Paragraphs that people wrote themselves in mails: neither quoted nor signature, chat-sized, one or two a mail."""
    pieces = []
    for path in sorted(folder.rglob("*.txt")):
        _, _, body = path.read_text(encoding="utf-8", errors="ignore").partition("\n\n")
        own = [" ".join(part.split()) for part in body.split("\n-- ")[0].split("\n\n") if not _MACHINE.search(part)]
        pieces += [part for part in own if len(part) in CHAT_SIZED and part.isascii()][:2]
    return pieces


def read_texts(spec: str, abuse: Sequence[str]) -> list[Row]:
    """Rows of `LABEL:SOURCE:FILE`: the last tab-separated field of each line, or the turns of a .yml of dialogues."""
    label, source, name = spec.split(":", 2)
    text = Path(name).read_text(encoding="utf-8", errors="ignore")
    if name.endswith(".yml"):
        turns = (line.strip() for line in text.splitlines())
        found = [turn.lstrip("- ").strip("'\"") for turn in turns if turn.startswith("- ")]
    else:
        found = [html.unescape(line.rsplit("\t", 1)[-1]) for line in text.splitlines()]
    bad = {word.strip() for word in abuse}
    kept = [t for t in found if len(t) > 1 and (label != "good" or not bad.intersection(t.lower().split()))]
    return [Row(t, label, source, 0.5) for t in random.Random(5).sample(kept, min(len(kept), 4_000))]


def read_letters(vectorizer: Path, model: Path) -> dict[str, float]:
    """N-gram -> its weight in a linear model of abuse, inverse document frequency folded in."""
    with vectorizer.open("rb") as file, model.open("rb") as other, warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        # pickles of a package that was fetched on purpose, read on the machine of who rebuilds
        counted, linear = pickle.load(file), pickle.load(other)  # noqa: S301
    weights = linear.coef_[0] * vars(vars(counted)["_tfidf"])["_idf_diag"].diagonal()
    return {gram: float(weights[at]) for gram, at in counted.vocabulary_.items()}


def _word_list(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        counted: dict[str, int] = json.load(file)
    return [word for word, _ in sorted(counted.items(), key=lambda item: -item[1])]


def bit_set(hashes: Ints) -> npt.NDArray[np.uint8]:
    """(2^20 / 8,) uint8 with the bits of these hashes."""
    bits = np.zeros(1 << SET_BITS, dtype=np.uint8)
    bits[hashes & np.uint32((1 << SET_BITS) - 1)] = 1
    return np.packbits(bits, bitorder="little")


def build_vocabulary(corpus: Corpus) -> Vocabulary:
    """Words and pairs that people use, how likely each letter follows two others, and each kind of word another."""
    listed = [word for at, words in enumerate(corpus.words) for word in words[: 60_000 if at == 0 else 12_000]]
    good = [*corpus.chats, *(r for r in corpus.rows if r.label in {"good", "spam", "toxic"} or r.source == "prose")]
    folded = [features.fold(row.text) for row in good]
    words = features.read_words(folded)
    inside = words.classes != 0
    text_of = np.cumsum(~inside)
    seen = _in_texts(words.hashes[inside], text_of[inside], 3)
    pairs = features.pair_hashes(words.hashes)
    whole = inside[:-1] & inside[1:]
    common = _in_texts(pairs[whole], text_of[:-1][whole], 2)
    beyond = inside[1:-1]
    order = _follow(words.classes[:-1], words.classes[1:])
    skip = _follow(words.classes[:-2][beyond], words.classes[2:][beyond])
    abuse = features.read_words([features.fold(word) for word in corpus.abuse if len(word.split()) == 1])
    known = np.concatenate([seen, features.read_words([features.fold(word) for word in listed]).hashes])
    letters = [*folded, *(features.fold(word) for words_ in corpus.words for word in words_[:20_000])]
    return Vocabulary(
        bit_set(known), bit_set(common), bit_set(abuse.hashes), _trigram_table(_triples(letters)),
        _log_odds(order), _log_odds(skip),
    )  # fmt: skip


def _in_texts(hashes: Ints, text_of: npt.NDArray[np.int64], least: int) -> Ints:
    """The hashes that occur in at least so many texts: what one text alone has teaches that text."""
    both = np.unique((text_of.astype(np.uint64) << np.uint64(32)) | hashes)
    found, count = np.unique((both & np.uint64(0xFFFFFFFF)).astype(np.uint32), return_counts=True)
    kept: Ints = found[count >= least]
    return kept


def _follow(first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> Floats:
    counted = np.bincount(first * CLASSES_OF_WORDS + second, minlength=CLASSES_OF_WORDS**2)
    follow: Floats = counted.reshape(CLASSES_OF_WORDS, CLASSES_OF_WORDS).astype(np.float32)
    return follow


def _log_odds(follow: Floats) -> Floats:
    """(256, 256) log p(b | a) / p(b), clipped; ten pseudo-counts a row, spread as classes are anywhere."""
    smoothed = follow + 10 * follow.sum(axis=0, keepdims=True) / max(1.0, float(follow.sum())) + 1e-3
    given = smoothed / smoothed.sum(axis=1, keepdims=True)
    anywhere = smoothed.sum(axis=0) / smoothed.sum()
    odds: Floats = np.clip(np.log(given / anywhere[None, :]), -4, 4).astype(np.float32)
    return odds


def _triples(folded: Sequence[bytes]) -> Floats:
    """(2^24,) how often each three bytes follow each other."""
    codes = features.join(folded).codes.astype(np.int64)
    packed = (codes[:-2] << 16) | (codes[1:-1] << 8) | codes[2:]
    inside = (codes[:-2] != 0) & (codes[1:-1] != 0) & (codes[2:] != 0)
    counted: Floats = np.bincount(packed[inside], minlength=1 << 24).astype(np.float32)
    return counted


def _trigram_table(triples: Floats) -> Floats:
    """(2^16,) log p(c | a b), shifted so that ordinary text has mean 0, where two triples meet the commoner one."""
    follow = triples.reshape(1 << 16, 256)
    likely = np.log((follow + 0.05) / (follow.sum(axis=1, keepdims=True) + 0.05 * 64)).reshape(-1)
    mean = float((likely * triples).sum() / triples.sum())
    table = np.full(1 << TRIGRAM_BITS, -4.0, dtype=np.float32)
    at = np.flatnonzero(triples)
    rows = features.trigram_hashes(at.astype(np.uint32))
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
    plain = [r.text for r in corpus.chats if len(r.text.split()) >= SALAD_WORDS]
    rows += [Row(t, label, f"invented:{label}", 0.7) for label, t in invented.texts(rng, plain)]
    return rows


def fit(corpus: Corpus, seed: int = 7, regularisation: float = 2.0) -> Classifier:
    """Train: inverse document frequency is folded into the weights, which are then stored as int8."""
    vocabulary = build_vocabulary(corpus)
    rows = training_rows(corpus, seed)
    grams, counts = _design([row.text for row in rows], vocabulary)
    document_frequency = np.asarray((grams > 0).sum(axis=0)).ravel()
    idf = np.log((1 + len(rows)) / (1 + document_frequency)).astype(np.float32)
    idf[document_frequency <= 1] = 0  # what one text alone has teaches that text
    design = hstack([grams.multiply(idf[None, :]) * NGRAM_SCALE, csr_matrix(counts)]).tocsr()
    labels = np.array([CLASSES.index(row.label) for row in rows])
    per_class = np.bincount(labels, minlength=len(CLASSES))
    weights = np.array([r.weight for r in rows]) * (len(rows) / len(CLASSES) / per_class[labels]) ** 0.5
    model = LogisticRegression(C=regularisation, max_iter=300, tol=1e-3)
    model.fit(design, labels, sample_weight=weights)
    learned = model.coef_.T.astype(np.float32)
    table = np.append(
        learned[: 1 << HASH_BITS] * (idf * NGRAM_SCALE)[:, None], np.zeros((1, len(CLASSES)), np.float32), axis=0
    )
    scale = (np.abs(table).max(axis=0) / 127).astype(np.float32)
    return Classifier(
        vocabulary,
        np.round(table / scale).astype(np.int8),
        scale,
        learned[1 << HASH_BITS :],
        model.intercept_.astype(np.float32),
        letters(corpus.letters),
    )


def _design(texts: Sequence[str], vocabulary: Vocabulary) -> tuple[Any, Floats]:
    """(n, 2^17) sparse shares of n-grams and (n, COUNTS) counts, in batches that fit the memory."""
    parts, counts = [], []
    for start in range(0, len(texts), 2_000):
        held = features.extract(texts[start : start + 2_000], vocabulary)
        n = len(held.counts)
        owner = np.repeat(np.tile(np.arange(n), 5), np.diff(np.append(held.starts, len(held.rows))))
        real = held.rows < 1 << HASH_BITS
        values = (1 / np.sqrt(np.maximum(1, held.sizes)))[owner[real]].astype(np.float32)
        parts.append(csr_matrix((values, (owner[real], held.rows[real].astype(np.int32))), shape=(n, 1 << HASH_BITS)))
        counts.append(held.counts)
    return vstack(parts).tocsr(), np.concatenate(counts)


def main(argv: Sequence[str] | None = None) -> int:
    """Rebuild and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments(parser)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    fit(read_corpus(args)).save(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
