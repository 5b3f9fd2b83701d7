"""The optional model: its scores join, and without its answer the linear ones stand."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from streams.quality import QualityConfig, Reason, judge_turns
from streams.quality.backend import Joined, Labeller, Labels

REPLY = "Your order was shipped on Tuesday and should arrive by Friday."


class Own:
    """A scorer to which everything is fine."""

    def scores(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """0.1 for each class."""
        return [dict.fromkeys(("spam", "toxic", "gibberish", "non_dialogue"), 0.1) for _ in texts]


def test_backend_higher_score_counts() -> None:
    """Labels in the model's own words are read; unknown ones and lower scores change nothing."""
    said = [("Toxicity", 0.95), ("SPAM", 0.02), ("joy", 1.0)]
    joined = Joined(Own(), Labeller(lambda texts: [said for _ in texts], 5.0))
    (found,) = joined.scores([REPLY])
    assert (found["toxic"], found["spam"]) == (0.95, 0.1)
    assert judge_turns([(REPLY, "agent")], QualityConfig(), joined)[0].reasons == (Reason.TOXIC,)
    assert judge_turns([(REPLY, "customer")], QualityConfig(), joined)[0].keep


def test_backend_late_or_failing_model_changes_nothing() -> None:
    """Past the deadline, while it still hangs, and when it raises, the own scores stand and the batch is counted."""
    going = threading.Event()

    def label(_: list[str]) -> Sequence[Labels]:
        going.wait(5.0)
        raise RuntimeError

    model = Labeller(label, 0.01)
    joined = Joined(Own(), model)
    expected = Own().scores([REPLY])
    assert joined.scores([REPLY]) == expected
    assert joined.scores([REPLY]) == expected
    going.set()
    Joined(Own(), Labeller(label, 5.0)).scores([REPLY])
    assert model.lost == 2
    assert joined.scores([]) == []


_CODE = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast
folder = Path(sys.argv[1])
words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "order", "shipped"]
(folder / "vocab.txt").write_text("\\n".join(words))
BertTokenizerFast(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
config = BertConfig(vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
    intermediate_size=8, max_position_embeddings=64,
    id2label={0: "neutral", 1: "hate"}, label2id={"neutral": 0, "hate": 1})
model = BertForSequenceClassification(config)
model.classifier.weight.data.zero_()
model.classifier.bias.data[:] = __import__("torch").tensor([-4.0, 4.0])
model.save_pretrained(folder)
from streams.quality import QualityConfig, judge_turns
(found,) = judge_turns([("Your order was shipped.", "agent")], QualityConfig(model=str(folder), model_deadline_s=60.0))
print(found.reasons[0].value)
"""


def test_backend_transformers_model_from_disk(tmp_path: object) -> None:
    """A sequence classifier named in the settings is loaded from disk and rejects what it finds."""
    pytest.importorskip("transformers")
    done = subprocess.run(
        [sys.executable, "-c", _CODE, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "toxic"
