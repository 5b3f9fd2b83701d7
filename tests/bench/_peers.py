"""Peers of the learner's step, run by an interpreter that has TRL: `python _peers.py REQUEST.json` prints JSON.

The request names the base, rows of token ids with their target flags, and how many steps to time; the answer is the
seconds of each step, the first two left out.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

WARM = 2


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Takes the processor time of each optimiser step."""

    def __init__(self) -> None:
        self.stamps: list[float] = []

    def on_step_end(self, *_args: Any, **_more: Any) -> None:
        """One step is over."""
        self.stamps.append(time.process_time())


def peft_loop(request: dict[str, Any]) -> list[float]:
    """PEFT + transformers with a hand-written loop: padded rows, labels on targets, fused AdamW."""
    model = adapted(request)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, fused=True)
    found = []
    for rows in batches(request):
        started = time.process_time()
        for at in range(0, len(rows), request["micro"]):
            part = rows[at : at + request["micro"]]
            longest = max(len(row["input_ids"]) for row in part)
            ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in part])
            labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in part])
            torch.autograd.backward(model(input_ids=ids, labels=labels).loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(time.process_time() - started)
    return found[WARM:]


def trl(request: dict[str, Any]) -> list[float]:
    """TRL's SFTTrainer; `checkpointing` is on by default there."""
    rows = [row for batch in batches(request) for row in batch]
    size = len(next(iter(batches(request))))
    config = SFTConfig(
        output_dir=request["folder"], per_device_train_batch_size=request["micro"],
        gradient_accumulation_steps=size // request["micro"], max_steps=len(rows) // size, learning_rate=1e-2,
        lr_scheduler_type="constant", gradient_checkpointing=request["checkpointing"], bf16=False, fp16=False,
        use_cpu=True, report_to=[], save_strategy="no", logging_strategy="no", max_length=None, packing=False,
        dataset_kwargs={"skip_prepare_dataset": True}, optim="adamw_torch_fused",
    )  # fmt: skip
    clock = Clock()
    tokenizer = AutoTokenizer.from_pretrained(request["base"])
    trainer = SFTTrainer(
        model=adapted(request), args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    return [after - before for before, after in pairwise(clock.stamps)][WARM - 1 :]


def adapted(request: dict[str, Any]) -> Any:
    """The base with a fresh LoRA adapter, fp32."""
    model = AutoModelForCausalLM.from_pretrained(request["base"], dtype=torch.float32)
    lora = LoraConfig(
        r=request["r"],
        lora_alpha=2 * request["r"],
        target_modules="all-linear",
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, lora)


def batches(request: dict[str, Any]) -> Any:
    """Rows of each step."""
    return request["batches"]


def main(argv: list[str]) -> int:
    """Time one peer."""
    torch.set_num_threads(1)
    request = json.loads(Path(argv[0]).read_text())
    seconds = {"peft": peft_loop, "trl": trl}[request["peer"]](request)
    sys.stdout.write("\n" + json.dumps(seconds) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
