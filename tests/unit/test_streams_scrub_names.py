"""The tagger: what it is made of, that it can be rebuilt, and what it costs to load."""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from streams.scrub.building.corpus import sentences
from streams.scrub.building.lexicon import DATA
from streams.scrub.building.train import packed, train
from streams.scrub.names import CACHE_WORDS, _tokens, tag, weights
from streams.scrub.normalise import normalise
from streams.scrub.token_kinds import TOKEN

MODEL = DATA / "tagger.json.gz"


def test_names_tags_people_and_not_things() -> None:
    """Names in plain sentences, in any case; brands, places and products stay."""
    text = "Sven Hedlund told ines okafor that the Samsung phone from Berlin works"
    assert [text[a:b] for a, b, _ in tag(text)] == ["Sven Hedlund", "ines okafor"]
    assert tag("the Netflix app on my Samsung TV crashes every Monday in London") == []
    assert tag("") == []


def test_names_joins_initials_and_particles() -> None:
    """A name is one span, with what stands inside it."""
    text = "Yesterday Ludwig K. van der Meer called"
    assert [text[a:b] for a, b, _ in tag(text)] == ["Ludwig K. van der Meer"]


def test_names_model_is_small_and_plain() -> None:
    """A few hundred kilobytes of JSON, no pickle, and the card names the very bytes that are shipped."""
    card = json.loads((DATA / "tagger.card.json").read_text())
    raw = MODEL.read_bytes()
    assert len(raw) < 1_000_000
    assert card["sha256"] == hashlib.sha256(raw).hexdigest()
    assert card["sources"]
    json.loads(gzip.decompress(raw))


def test_names_word_cache_is_bounded() -> None:
    """Any number of made-up words leaves the cache below its limit."""
    weights()
    for i in range(0, CACHE_WORDS + 2_000, 500):
        tag(" ".join(f"Q{chr(97 + j % 26)}{'x' * (j % 7)}{i + j}z".replace("0", "o") for j in range(500)))
    assert len(_tokens) <= CACHE_WORDS


def test_names_loads_no_learning_library() -> None:
    """Scrubbing in a fresh interpreter imports neither torch nor any other library to learn with, numpy aside."""
    code = "import sys; from streams.scrub import find; find('my name is Ines Okafor'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "scipy", "sklearn"} & set(loaded)


def test_names_rebuild_gives_the_same_bytes(data_dir: Path) -> None:
    """The shipped weights are what the project's own script makes of its sources."""
    table, _ = train(data_dir)
    assert packed(table) == MODEL.read_bytes()


def test_names_training_shares_no_sentence_with_the_labelled_set(data_dir: Path, pii_dir: Path) -> None:
    """No training sentence is a turn of the set that measures us."""
    rows = (pii_dir / "messages.jsonl").read_text(encoding="utf-8").splitlines()
    turns = {tuple(TOKEN.findall(normalise(json.loads(row)["text"]).text.lower())) for row in rows}
    shared = turns & {tuple(t.lower() for t in example.tokens) for example in sentences(data_dir, 1)}
    assert {turn for turn in shared if len(turn) > 4} == set()


@pytest.mark.parametrize(
    "name",
    [
        "lexicon.txt.gz",
        "tagger.json.gz",
        "names.txt",
        "words.txt",
        "templates.txt",
        "network.bin.gz",
        "postal.txt",
        "turns.txt",
    ],
)
def test_names_data_is_packaged(name: str) -> None:
    """Every source and product of the build lies in the package."""
    assert (DATA / name).stat().st_size > 0
