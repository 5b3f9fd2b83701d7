from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from learner.adapter import load_base, new_lora
from learner.batch import Document, Drawn, Heard, Reply
from learner.config import TrainConfig
from learner.ranks import Ranks, parts
from learner.update import Trajectory, new_trajectory, step
from tests.bases import tiny_base

CONFIG = TrainConfig(learning_rate=1e-2, warmup_steps=2, r=8, alpha=16, head_detached_steps=1)


def chosen(at: int) -> list[Document]:
    """Seven documents of different lengths, with a pair and a rating."""
    made = []
    for nth in range(7):
        generator = torch.Generator().manual_seed(100 * at + nth)
        length = 8 + 5 * nth
        ids = tuple(torch.randint(4, 380, (length,), generator=generator).tolist())
        reply = Reply(length // 2, length, 1.0, "good" if nth == 3 else "unknown", reference=-40.0)
        if nth == 5:
            reply = Reply(length // 2, length, 0.0, "bad", draft=True, reference=-50.0)
        heard = (Heard(length // 2 - 1, (("intent", f"t{(nth + at) % 4}"),)),)
        made.append(Document(ids, (reply,), Drawn("rehearsal", f"{at}{nth}"), heard))
    return made


def start(folder: Path) -> tuple[object, Trajectory]:
    base = load_base(folder)
    return base, new_trajectory(new_lora(base.shape, 8, 16, torch.Generator().manual_seed(4)), 400, CONFIG)


def work(rank: int, folder: Path) -> None:
    """One of two processes: rank 0 takes six steps, restarts once, and stores its weights."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    base, trajectory = start(folder / "base")
    ranks = Ranks()
    if rank:
        ranks.follow(base, trajectory)  # type: ignore[arg-type]
    else:
        for at in range(6):
            if at == 3:
                trajectory = _restarted(trajectory)
            ranks.take(base, trajectory, chosen(at))  # type: ignore[arg-type]
        ranks.stop()
        torch.save([trajectory.lora.flat.detach(), trajectory.heads.flat.detach()], folder / "weights.pt")
    dist.destroy_process_group()


def _restarted(trajectory: Trajectory) -> Trajectory:
    made = new_trajectory(trajectory.lora.with_flat(trajectory.lora.flat.detach() * 0.5), 400, CONFIG)
    made.step, made.rate_factor = trajectory.step, 0.5
    return made


def test_ddp_two_ranks(tmp_path: Path) -> None:
    """Two processes that share each step end with the weights and heads of one that takes it alone."""
    tiny_base(tmp_path / "base")
    spawn(work, args=(tmp_path,), nprocs=2, join=True)  # type: ignore[no-untyped-call]
    base, trajectory = start(tmp_path / "base")
    for at in range(6):
        if at == 3:
            trajectory = _restarted(trajectory)
        step(base, trajectory, chosen(at))  # type: ignore[arg-type]
    for together, alone in zip(
        torch.load(tmp_path / "weights.pt"), (trajectory.lora.flat, trajectory.heads.flat), strict=True
    ):
        assert float((together - alone.detach()).norm() / together.norm()) < 1e-5


@pytest.mark.parametrize("size", [1, 2, 3])
def test_ranks_parts_cover_everything_once(size: int) -> None:
    """Each document goes to one rank, and a draft stays with its final."""
    made = parts(chosen(0), size)
    assert sorted(d.drawn.key for part in made for d in part) == sorted(d.drawn.key for d in chosen(0))
    for part in made:
        for document, behind in zip(part, [*part[1:], None], strict=True):
            if document.replies[0].draft:
                assert behind is not None
                assert behind.drawn.key == "06"
