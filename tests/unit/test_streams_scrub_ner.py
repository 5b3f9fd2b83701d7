"""The optional recogniser: a real transformers pipeline from disk, joined by configuration."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from streams.events import Message
from streams.scrub import ConversationState, Keys, Scrubber, ScrubConfig

_CODE = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast
folder = Path(sys.argv[1])
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ines", "called", "blue", "sky"]
(folder / "vocab.txt").write_text("\\n".join(words))
BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
config = BertConfig(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
    intermediate_size=8, max_position_embeddings=16, id2label={0: "O", 1: "B-PER"}, label2id={"O": 0, "B-PER": 1})
model = BertForTokenClassification(config)
model.classifier.weight.data.zero_()
model.classifier.bias.data[:] = __import__("torch").tensor([-1.0, 1.0])
model.save_pretrained(folder)
from streams.events import Message
from streams.scrub import ConversationState, Keys, Scrubber, ScrubConfig
scrubber = Scrubber(ScrubConfig(ner=str(folder), ner_deadline_s=60.0), Keys("k", {"k": b"1" * 32}, b"f" * 32))
event = Message(event_id="e", conversation_id="c", seq=0, ts="2025-01-01T00:00:00Z", role="customer", text="blue sky")
(clean,), _ = scrubber.scrub_event(event, ConversationState(), received_at=0.0, offset=(0, 0))
print(clean.text)
"""


def test_ner_transformers_pipeline_joins(tmp_path: object) -> None:
    """A token-classification model named in the settings is loaded from disk and its persons are masked."""
    pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split("\n")[-2].startswith("<PERSON_1>")


def test_ner_presidio_joins_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """`presidio` in the settings loads its analyzer; its labels become ours, and those that stay readable are left."""

    class AnalyzerEngine:
        def analyze(self, text: str, language: str) -> list[Any]:
            assert (text, language) == ("blue sky in Oslo", "en")
            found = [(0, 4, "PERSON"), (5, 8, "US_SSN"), (12, 16, "LOCATION")]
            return [SimpleNamespace(start=a, end=b, entity_type=label) for a, b, label in found]

    monkeypatch.setitem(sys.modules, "presidio_analyzer", SimpleNamespace(AnalyzerEngine=AnalyzerEngine))
    scrubber = Scrubber(ScrubConfig(ner="presidio"), Keys("k", {"k": b"1" * 32}, b"f" * 32))
    event = Message(
        event_id="e", conversation_id="c", seq=0, ts="2025-01-01T00:00:00Z", role="customer", text="blue sky in Oslo"
    )
    (clean,), _ = scrubber.scrub_event(event, ConversationState())
    assert clean.text == "<PERSON_1> <NATIONAL_ID_1> in Oslo"
