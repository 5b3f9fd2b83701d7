"""A file of chats as `ingest` and `reconcile` read it: which format, gzip or plain, whose mails are the staff's.

Both have to read it alike: ids of events that have none of their own come from what was read.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from services.settings import SettingsError
from streams.sources import FORMATS, detect

_HEAD = 65_536
"""Bytes of the first line by which a format is told."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The file and how it is to be read."""
    kinds = (
        "traffic, events or conversations JSONL, CSV, mbox; FAQs and documents in Markdown, HTML, text, JSON; or .gz"
    )
    parser.add_argument("file", type=Path, help=kinds)
    parser.add_argument("--format", choices=FORMATS, help="default: by the file's name and first line")
    parser.add_argument("--agents", default="", help="mbox: addresses or domains of your staff, separated by commas")


def format_of(args: argparse.Namespace) -> str:
    """The format of the file. Raises `SettingsError` where it cannot be read, or nobody knows its format."""
    if not args.file.is_file():
        raise SettingsError(f"{args.file}: no such file")
    try:
        with opened(args.file) as lines:
            form = args.format or detect(args.file.name, lines.readline(_HEAD))
    except (OSError, EOFError) as error:
        raise SettingsError(f"{args.file}: {error}") from None
    if form is None:
        raise SettingsError(f"{args.file}: format not recognised; name it with --format")
    return str(form)


def agents_of(args: argparse.Namespace, known: Sequence[str]) -> list[str]:
    """The staff's addresses and domains: those of the settings and of the command line."""
    return [*known, *(name for name in args.agents.split(",") if name)]


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked if it is gzip, whatever its name. Raises OSError."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if packed:
            with gzip.open(file) as lines:
                yield lines  # type: ignore[misc] # a GzipFile reads as one
        else:
            yield file
