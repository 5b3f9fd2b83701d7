"""Back-translation through models of transformers: two tiny Marians of random weights, built here."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from learner import back_translation
from streams.augment import AugmentConfig, augment
from streams.events import Sample, Turn

WORDS = ("<pad>", "</s>", "<unk>", "where", "is", "my", "parcel", "order", "please", "number", "seven", "?")


def _model(path: Path) -> str:
    """A folder with a model that translates into these words at random; its name."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: PLC0415
    from transformers import MarianConfig, MarianMTModel, PreTrainedTokenizerFast  # noqa: PLC0415 - slow import

    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(path)
    torch.manual_seed(len(path.name))
    config = MarianConfig(
        vocab_size=len(WORDS), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0, forced_eos_token_id=1, max_position_embeddings=128, init_std=1.0,
    )  # fmt: skip
    MarianMTModel(config).save_pretrained(path)
    return str(path)


@pytest.mark.filterwarnings("ignore")  # of transformers' own
def test_back_translation_by_models_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders are loaded, the same seed says the same, another may not, and nonsense makes no copy."""
    pytest.importorskip("transformers")
    monkeypatch.setattr(back_translation, "MOST_TOKENS", 12)
    folders = (_model(tmp_path / "there"), _model(tmp_path / "back"))
    say = back_translation.BackTranslation(*folders)
    text = "where is my order number seven please ?"
    said = [say(text, seed) for seed in range(3)]
    assert said == [say(text, seed) for seed in range(3)]
    assert len(set(said)) > 1
    assert all(set(one.split()) <= set(WORDS) for one in said)
    turns = (Turn(role="customer", text=text), Turn(role="agent", text="It left today.", is_target=True, event_id="e"))
    sample = Sample(
        sample_id="e/sft/0", conversation="c", customer="c", lane="chat", split="train", turns=turns, received_at=1.0,
        completed_at=1.0,
    )  # fmt: skip
    config = AugmentConfig(copies=2, generated=1.0, translation=folders)
    assert augment(sample, config, random.Random(1), say) == []
