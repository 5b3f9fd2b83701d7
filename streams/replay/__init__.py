"""The replay buffer in Redis: exact insert, declared draws, lineage, retention and erasure."""

from streams.replay.aio import AsyncReplayBuffer
from streams.replay.buffer import ReplayBuffer
from streams.replay.config import (
    ANCHOR,
    QUARANTINE,
    ConfigMismatch,
    Quota,
    ReplayConfig,
    ReplayError,
    ServerFull,
    TableConfig,
    UnsafeServer,
)
from streams.replay.mix import DEFAULT, UNIFORM, Mix, Part, draw_seed
from streams.replay.offsets import Offset, Offsets, TopicPartition
from streams.replay.server import check_server
from streams.replay.shapes import Batch, Draw, Drawn, Handle, InsertReport, UpdateReport, Wait
from streams.replay.shards import Shards
from streams.replay.tables import Tables, open_table, open_tables

__all__ = [
    "ANCHOR",
    "DEFAULT",
    "QUARANTINE",
    "UNIFORM",
    "AsyncReplayBuffer",
    "Batch",
    "ConfigMismatch",
    "Draw",
    "Drawn",
    "Handle",
    "InsertReport",
    "Mix",
    "Offset",
    "Offsets",
    "Part",
    "Quota",
    "ReplayBuffer",
    "ReplayConfig",
    "ReplayError",
    "ServerFull",
    "Shards",
    "TableConfig",
    "Tables",
    "TopicPartition",
    "UnsafeServer",
    "UpdateReport",
    "Wait",
    "check_server",
    "draw_seed",
    "open_table",
    "open_tables",
]
