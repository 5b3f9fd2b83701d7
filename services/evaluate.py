"""`driftline evaluate`: a version, or the base, on a file of chats; beside base and parent, with intervals."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learner.registry import BASE
from services.chat_files import check_chats
from services.options import natural, positive
from services.preconditions import given_base
from services.publishers import registry_of
from services.remedies import of_file

if TYPE_CHECKING:
    from services.settings import Settings


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--adapter", default=BASE, help="version id, folder of an adapter, or `base` (default)")
    parser.add_argument("--data", type=Path, required=True, help="chats in any format that ingest reads")
    parser.add_argument("--format", help="format of the file where its name and first line do not tell")
    parser.add_argument("--base-model", type=Path, help="folder of the base (default: the configured or shipped one)")
    parser.add_argument("--limit", type=positive, help="only the first N chats")
    parser.add_argument("--answers", type=natural, default=0, help="also answer the last customer turn of N chats")
    parser.add_argument(
        "--classify", type=Path, help='rows {"text", LABEL}: fit and test a head on four and one of five'
    )
    parser.add_argument("--label", default="intent", help="field of those rows that is the class (default: intent)")
    parser.add_argument("--fairness", action="store_true", help="gaps between names, ages and origins, by version")
    parser.add_argument("--scrub", action="store_true", help="mask personal data first, as training does")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Evaluate and print. Returns 0, 1 when nothing could be scored, 2 for bad input. Raises RegistryError."""
    try:
        check(args, settings)
        from services.evaluation import report_on  # noqa: PLC0415 - loads torch, refusals must not

        report = report_on(args, settings)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"driftline evaluate: {of_file(error)}\n")
        return 2
    sys.stdout.write((json.dumps(report, allow_nan=False) if args.json else table(report)) + "\n")
    return 0 if report["tokens"] else 1


def check(args: argparse.Namespace, settings: Settings) -> None:
    """Refuse what can be refused before models are loaded. Raises OSError, ValueError, RegistryError."""
    given_base(args.base_model, settings)
    check_chats(args.data, args.format)
    if args.classify:
        args.classify.open("rb").close()
    if args.adapter != BASE and not Path(args.adapter).is_dir():
        registry_of(settings.registry, lambda: 0.0).manifest(args.adapter)


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    rows = {"adapter" if BASE in report else BASE: report}
    rows |= {name: report[name] for name in ("parent", BASE) if isinstance(report.get(name), dict)}
    lines = [
        f"{report['adapter']} on {report['data']}: {report['examples']} examples, {report['tokens']} reply tokens",
        f"{'':10}{'nll/token':>22}{'perplexity':>12}{'accuracy':>10}{'bits/byte':>11}   saved by the adapter",
    ]
    for name, row in rows.items():
        nll = f"{row['nll_per_token']:.3f} [{row['nll_low']:.3f}, {row['nll_high']:.3f}]"
        line = (
            f"{name:10}{nll:>22}{row['perplexity']:>12.2f}{row['token_accuracy']:>10.3f}{row['bits_per_byte']:>11.3f}"
        )
        gain = row.get("gain")
        lines.append(line + (f"   {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]" if gain else ""))
    for topic, row in report["slices"].items():
        losses = "  ".join(f"{name} {row[name]:.3f}" for name in ("adapter", "parent", BASE) if name in row)
        lines.append(f"  {topic:24} {row['examples']:>5} examples  {losses}")
    for name, row in report.get("answers", {}).items():
        scores = f"token-F1 {row['token_f1']:.3f}, ROUGE-L {row['rouge_l']:.3f}"
        lines.append(f"  answers of {name}: {scores} ({row['answers']})")
    for name, row in report.get("fairness", {}).items():
        gaps = f"{row['likelihood_nats']:.3f} nats a token of a helpful reply, {row['tone']:.0%} of courteous answers"
        lines.append(f"  largest gap between groups, {name}: {gaps}")
    for name, row in report.get("heads", {}).items():
        scores = " ".join(f"{measure} {row[measure]:.3f}" for measure in ("accuracy", "precision", "recall", "f1"))
        lines.append(f"  head on {name}: {scores} (majority {row['majority_accuracy']:.3f}, n {row['examples']})")
    return "\n".join(lines)
