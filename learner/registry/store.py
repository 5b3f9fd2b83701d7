"""The registry's store: blobs by digest, create-only manifests, claimed sequence numbers, in a folder.

    blobs/sha256/<hex>                 bytes under their own digest
    versions/<id>/manifest.json        linked into place, never overwritten: the commit
    versions/<id>/gone.json            create-only: withdrawn or collected; files go, lineage stays
    seq/<line><seq>                    created exclusively by its publisher, then holds the id
    lines/<line>                       newest id; a hint, from which `newest` walks on

A version exists from the link of its manifest on. Readers follow pointers and records and never list.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkstemp
from typing import Any

from learner.registry import manifest as manifests
from learner.registry import tensors
from learner.registry import verify as checks
from learner.registry.manifest import (
    BASE,
    CONFIG_FILE,
    FILES,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    Base,
    Eval,
    File,
    Lora,
    Malformed,
    Manifest,
    Probe,
    RegistryError,
    Signer,
    Training,
    Trust,
    to_object,
)
from learner.registry.verify import BOUNDS, Bounds, Reason, Refused
from streams.events import isoformat

SWEEP_AFTER_S = 24 * 3600
"""Age, in seconds, from which a blob that no manifest names is swept: no publish takes that long."""


class Unknown(RegistryError):
    """No manifest under this id."""


class Gone(RegistryError):
    """The version was withdrawn or collected; its manifest remains as lineage."""


class Fenced(RegistryError):
    """A newer owner of the line has started: this one may not publish."""


@dataclass(frozen=True)
class Facts:
    """What the publisher knows of a candidate; the rest of the manifest is computed from the stored bytes."""

    line: str
    parent: str
    base: Base
    base_config: Mapping[str, Any]
    """The base's config.json, from which names and shapes follow."""
    lora: Lora
    probe: Probe
    eval: Eval
    training: Training
    weights_sha256: str
    """Digest of the weights file that was scored: other bytes are not published."""


def _no_failpoint(_name: str) -> None:
    """Failpoints are injected by tests only."""


class Registry:
    """Publishes, reads and withdraws versions in a folder; safe for several processes."""

    def __init__(
        self,
        root: Path,
        trust: Trust,
        clock: Callable[[], float],
        *,
        signer: Signer | None = None,
        bounds: Bounds = BOUNDS,
        failpoint: Callable[[str], None] = _no_failpoint,
    ) -> None:
        """Open a store; readers need no `signer`, `clock` gives seconds since the epoch."""
        self._root = root
        self._trust = trust
        self._clock = clock
        self._signer = signer
        self._bounds = bounds
        self._hit = failpoint

    def publish(self, files: Mapping[str, Path], facts: Facts, still_owner: Callable[[], bool] = lambda: True) -> str:
        """Commit a version and return its id. Raises Refused, Fenced (asked just before the commit), OSError."""
        if self._signer is None:
            raise RegistryError("publishing needs a signing key")
        if sorted(files) != sorted(FILES):
            raise Refused(Reason.EXTRA_FILE, f"a version is exactly {', '.join(FILES)}")
        entries = [self._put_file(name, path) for name, path in sorted(files.items())]
        self._hit("blobs")
        facts_of_weights = self._inspect(entries, facts)
        seq = self._claim(facts.line)
        self._hit("claim")
        body = {
            "line": facts.line, "seq": seq, "parent": facts.parent, "created_at": isoformat(self._clock()),
            "base": to_object(facts.base), "lora": to_object(facts.lora), "files": [to_object(e) for e in entries],
            "tensors": facts_of_weights, "probe": to_object(facts.probe), "eval": to_object(facts.eval),
            "training": to_object(facts.training),
        }  # fmt: skip
        sealed = manifests.sealed(body, self._signer)
        self._hit("sign")
        if not still_owner():
            raise Fenced(f"line {facts.line}: epoch {facts.training.epoch} is over")
        self._write(self._claim_path(facts.line, seq), sealed.id.encode())
        self._hit("named")
        self._create(self._manifest_path(sealed.id), manifests.encode(sealed))
        self._hit("commit")
        for entry, path in zip(entries, (files[entry.path] for entry in entries), strict=True):
            if not self._blob_path(entry.sha256).exists():  # collected or withdrawn together with equal bytes
                self._put_file(entry.path, path)
        self._point(facts.line, sealed.id)
        self._hit("pointer")
        return sealed.id

    def manifest(self, version: str) -> Manifest:
        """A version's manifest, digest and signature checked. Raises Unknown, Malformed, Refused."""
        manifests.sequence(version)
        try:
            found = manifests.read(self._manifest_path(version).read_bytes())
        except FileNotFoundError:
            raise Unknown(version) from None
        if found.id != version:
            raise Malformed(f"{version} holds the manifest of {found.id}")
        if not self._trust.accepts(found.digest, found.signature):
            raise Refused(Reason.SIGNATURE, f"{version} is not signed by a known key")
        return found

    def fetch(self, version: str, into: Path) -> Path:
        """Copy a version into `into`/<id>, digests checked, whole or not at all. Raises Unknown, Gone, Refused."""
        found = self.manifest(version)
        self._refuse_gone(version)
        target = into / version
        if target.exists():
            checks.check_names(target)
            checks.check_digest(target, found)
            return target
        into.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=into, prefix=".fetch-") as temporary:
            work = Path(temporary) / version
            work.mkdir()
            for file in found.files:
                try:
                    shutil.copyfile(self._blob_path(file.sha256), work / file.path)
                except FileNotFoundError:
                    self._refuse_gone(version)
                    raise Refused(Reason.DIGEST, f"{file.path} is missing from the store") from None
            checks.check_digest(work, found)
            (work / MANIFEST_FILE).write_bytes(manifests.encode(found))
            for name in (*FILES, MANIFEST_FILE):
                _sync(work / name)
            _sync(work)
            try:
                work.rename(target)
            except OSError:  # another fetch of the same version won
                if not target.exists():
                    raise
        _sync(into)
        return target

    def gone(self, version: str) -> str | None:
        """Why a version's files are no more, or None."""
        try:
            return str(json.loads((self._manifest_path(version).parent / "gone.json").read_bytes())["reason"])
        except FileNotFoundError:
            return None

    def withdraw(self, version: str, reason: str) -> None:
        """Take a version back for good: weights go, the manifest stays. Repeating it is harmless. Raises Unknown."""
        if version == BASE or not self._manifest_path(version).exists():
            raise Unknown(version)
        marker = {"reason": reason, "at": isoformat(self._clock())}
        with suppress(FileExistsError):
            self._create(self._manifest_path(version).parent / "gone.json", manifests.canonical(marker))
        self._hit("gone")
        weights = self.manifest(version).file(WEIGHTS_FILE).sha256
        if weights not in self._named_blobs():
            self._blob_path(weights).unlink(missing_ok=True)

    def newest(self, line: str) -> str | None:
        """The newest committed version of a line, refused or withdrawn ones included; moves the pointer up to it."""
        pointer = self._pointer(line)
        newest, seq = pointer, manifests.sequence(pointer or BASE)
        while (claimed := self._claimed(line, seq + 1)) is not None:
            seq += 1
            if claimed and self._manifest_path(claimed).exists():
                newest = claimed
        if newest is not None and newest != pointer:
            self._point(line, newest)
        return newest

    def history(self, line: str) -> Iterator[str]:
        """Committed versions of a line, newest first, found by sequence number."""
        newest = self.newest(line)
        for seq in range(manifests.sequence(newest or BASE), 0, -1):
            claimed = self._claimed(line, seq)
            if claimed and self._manifest_path(claimed).exists():
                yield claimed

    def collect(self, keep: Collection[str], newest: int) -> list[str]:
        """Free the files of versions that are not in `keep` nor among the `newest` of their line; sweep stray blobs.

        `keep` names every version of a rollout record or a node's report. Returns the versions collected.
        """
        collected = []
        for pointer in sorted((self._root / "lines").glob("[a-z]")):
            for age, version in enumerate(self.history(pointer.name)):
                if age >= newest and version not in keep and self.gone(version) is None:
                    self.withdraw(version, "collected")
                    collected.append(version)
        named = self._named_blobs()
        stray = [blob for blob in (self._root / "blobs" / "sha256").glob("*") if blob.name not in named]
        for path in {*stray, *self._root.rglob(".new-*")}:
            with suppress(FileNotFoundError):  # its publisher has just renamed it
                if self._clock() - path.stat().st_mtime > SWEEP_AFTER_S:
                    path.unlink()
        return collected

    def _inspect(self, entries: list[File], facts: Facts) -> dict[str, Any]:
        """Read the blobs back, refuse what nodes would refuse, and give the tensor facts."""
        by_name = {entry.path: self._blob_path(entry.sha256) for entry in entries}
        weights_entry = next(entry for entry in entries if entry.path == WEIGHTS_FILE)
        if weights_entry.sha256 != facts.weights_sha256:
            raise Refused(Reason.DIGEST, "the weights are not the ones that were scored")
        checks.check_config(by_name[CONFIG_FILE].read_bytes(), facts.base, facts.lora)
        try:
            weights = tensors.open_weights(by_name[WEIGHTS_FILE])
        except Malformed as error:
            raise Refused(Reason.FORMAT, str(error)) from None
        checks.check_keys(weights, facts.lora, facts.base_config, self._bounds)
        numbers = checks.check_numbers(weights, facts.lora, self._bounds)
        return {
            "count": len(weights.entries), "keyset_sha256": tensors.keyset_digest(weights.shapes), "nonfinite": 0,
            "fro_norm": numbers.fro_norm, "max_abs": numbers.max_abs,
            "delta_norm_to_parent": self._distance(weights, facts.parent, numbers.fro_norm),
        }  # fmt: skip

    def _distance(self, weights: tensors.Weights, parent: str, norm: float) -> float:
        """Norm of the difference to the parent; the own norm where that is the base, gone, or of other shapes."""
        if parent == BASE:
            return norm
        blob = self._blob_path(self.manifest(parent).file(WEIGHTS_FILE).sha256)
        other = tensors.open_weights(blob) if blob.exists() else None
        if other is None or other.shapes != weights.shapes or other.dtypes != weights.dtypes:
            return norm
        return tensors.distance(weights, other)

    def _put_file(self, name: str, source: Path) -> File:
        """Store a file under its digest; the digest is that of the bytes written."""
        blobs = self._root / "blobs" / "sha256"
        with self._temporary(blobs) as temporary:
            shutil.copyfile(source, temporary)
            self._hit("write")
            _sync(temporary)
            self._hit("fsync")
            found = checks.file_sha256(temporary)
            temporary.rename(blobs / found)
            self._hit("rename")
        _sync(blobs)
        return File(path=name, size=(blobs / found).stat().st_size, sha256=found)

    def _claim(self, line: str) -> int:
        """Take the next free sequence number of a line for good."""
        seq = manifests.sequence(self._pointer(line) or BASE)
        while True:
            seq += 1
            manifests.version_id(line, seq, "0" * 64)
            with suppress(FileExistsError):
                self._create(self._claim_path(line, seq), b"")
                return seq

    def _claimed(self, line: str, seq: int) -> str | None:
        """The id under a claimed number, empty while its publisher has not named it; None when it is free."""
        try:
            return self._claim_path(line, seq).read_text()
        except FileNotFoundError:
            return None

    def _named_blobs(self) -> set[str]:
        """Digests named by versions that still have their files."""
        named: set[str] = set()
        for path in (self._root / "versions").glob(f"*/{MANIFEST_FILE}"):
            found = manifests.read(path.read_bytes())
            gone = (path.parent / "gone.json").exists()
            named.update(file.sha256 for file in found.files if not (gone and file.path == WEIGHTS_FILE))
        return named

    def _refuse_gone(self, version: str) -> None:
        reason = self.gone(version)
        if reason is not None:
            raise Gone(f"{version}: {reason}")

    def _pointer(self, line: str) -> str | None:
        try:
            return (self._root / "lines" / line).read_text()
        except FileNotFoundError:
            return None

    def _point(self, line: str, version: str) -> None:
        if manifests.sequence(self._pointer(line) or BASE) < manifests.sequence(version):
            self._write(self._root / "lines" / line, version.encode())

    def _write(self, path: Path, content: bytes) -> None:
        """Replace a small file atomically and durably."""
        with self._temporary(path.parent) as temporary:
            temporary.write_bytes(content)
            _sync(temporary)
            temporary.rename(path)
        _sync(path.parent)

    def _create(self, path: Path, content: bytes) -> None:
        """Create a file with its whole content, durably. Raises FileExistsError: a link never overwrites."""
        with self._temporary(path.parent) as temporary:
            temporary.write_bytes(content)
            _sync(temporary)
            os.link(temporary, path)
        _sync(path.parent)

    @contextmanager
    def _temporary(self, folder: Path) -> Iterator[Path]:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _sync(folder.parent)
        handle, name = mkstemp(dir=folder, prefix=".new-")
        os.fchmod(handle, 0o644)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def _manifest_path(self, version: str) -> Path:
        return self._root / "versions" / version / MANIFEST_FILE

    def _claim_path(self, line: str, seq: int) -> Path:
        return self._root / "seq" / f"{line}{seq:06d}"

    def _blob_path(self, digest: str) -> Path:
        return self._root / "blobs" / "sha256" / digest


def _sync(path: Path) -> None:
    """Force a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
