from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from services.cli import main
from services.local.supervisor import free_port
from services.preconditions import able_to_learn
from services.settings import Settings, SettingsError, load

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"DRIFTLINE_KEYS__RING": '{"k1": "000102030405060708090a0b0c0d0e0f"}', "DRIFTLINE_KEYS__FIXED": "0f" * 16}
CHAT = {"turns": [{"role": "customer", "text": "Where is it?"}, {"role": "agent", "text": "On its way."}]}

REFUSED = [
    "learn", "evaluate --data missing.jsonl", "evaluate --data chats.jsonl --base-model missing",
    "evaluate --data chats.jsonl --adapter a000009-00000000", "evaluate --data chats.jsonl --classify missing.jsonl",
    "evaluate --data chats.jsonl --format nonsense", "tune --live", "tune --data missing.jsonl",
    "tune --data chats.jsonl --base-model missing", "tune --data chats.jsonl --search grid --space [1]",
    "tune --data chats.jsonl --search random", "condition missing out", "base chats.jsonl",
]  # fmt: skip

ASKED = """
import json, sys
sys.path.insert(0, sys.argv[2])
from services.cli import main
codes = [main(command.split()) for command in json.loads(sys.argv[1])]
print(json.dumps([codes, sorted({"torch", "transformers", "peft"} & set(sys.modules))]))
"""


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a run that holds one file of chats, and a port where no Redis listens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIFTLINE_REDIS__URL", f"redis://127.0.0.1:{free_port()}/0")
    (tmp_path / "chats.jsonl").write_text(json.dumps(CHAT) + "\n")


def test_preconditions_refusals_load_no_models() -> None:
    """A missing key, file, base, version or server is told before torch is loaded: exit code 2, one line each."""
    command = [sys.executable, "-c", ASKED, json.dumps(REFUSED), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    codes, loaded = json.loads(done.stdout)
    assert codes == [2] * len(REFUSED)
    assert loaded == []
    told = done.stderr.strip().splitlines()
    assert [line.split(":")[0] for line in told] == [f"driftline {one.split()[0]}" for one in REFUSED]


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("TRAIN__BASE", "nowhere", "train.base = nowhere: config.json: No such file"),
        ("TRAIN__DOCUMENT_TOKENS", "4096", "train.document_tokens = 4096: the base reads 1024 tokens at most"),
        ("TRAIN__DIRECTORY", "chats.jsonl", "train.directory = chats.jsonl: File exists"),
        ("REGISTRY__DIRECTORY", "/proc/store", "registry.directory = /proc/store: No such file"),
        ("REGISTRY__KEY", "chats.jsonl", "registry.key = chats.jsonl: non-hexadecimal"),
    ],
)
def test_preconditions_learn_names_key_value_and_rule(setting: str, value: str, told: str) -> None:
    """What a look can tell of the learner's settings is told with the setting's name, its value and what it wants."""
    with pytest.raises(SettingsError, match=told) as refused:
        able_to_learn(load(environment={**KEYS, f"DRIFTLINE_{setting}": value}))
    assert "wants" in str(refused.value) or "set it" in str(refused.value)


def test_preconditions_learn_passes_what_is_there(tmp_path: Path) -> None:
    """With keys and the shipped base the folders and a signing key are made, and nothing is refused."""
    able_to_learn(load(environment=KEYS))
    assert (tmp_path / ".driftline/signing.key").is_file()
    assert list((tmp_path / ".driftline/learner").iterdir()) == []


def test_preconditions_base_must_be_whole(tmp_path: Path) -> None:
    """A folder with half a base, or another kind of model, is refused by its missing part."""
    settings = replace(load(environment=KEYS), train=replace(Settings().train, base=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(SettingsError, match="none of a Llama-like model"):
        able_to_learn(settings)
    shipped = ROOT / "learner/demo_base"
    (tmp_path / "config.json").write_bytes((shipped / "config.json").read_bytes())
    with pytest.raises(SettingsError, match=r"no tokenizer\.json in it"):
        able_to_learn(settings)


@pytest.mark.parametrize(
    "options",
    [
        "tune --live --share nan",
        "tune --live --minutes -1",
        "tune --live --patience -1",
        "evaluate --data=x --answers -1",
    ],
)
def test_preconditions_odd_numbers(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A number out of its range is refused with its option's name."""
    with pytest.raises(SystemExit):
        main(options.split())
    told = capsys.readouterr().err
    assert options.split()[-2] in told
    assert "wants" in told


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("LEARNING_RATE", ("inf", "nan", "-1")), ("BETA2", ("1", "-.1", "nan")), ("WARMUP_STEPS", ("-1",)),
        ("FRESH_WAIT_S", ("-1", "nan", "inf")), ("QUARANTINE_NATS", ("-1", "nan")), ("APO_BETA", ("0", "nan")),
        ("GAUGE_BUDGET", ("-1", "inf")), ("ANCHORS", ("-1",)), ("SEED", ("-1",)), ("LINE", ("", "ab", "A", "../x")),
        ("DEVICE", ("gpu",)),
    ],
)  # fmt: skip
def test_config_refuses_odd_values(setting: str, values: tuple[str, ...]) -> None:
    """What no training can use is refused where settings are read, with key, value and rule."""
    for value in values:
        with pytest.raises(SettingsError, match=setting.lower()):
            load(environment={f"DRIFTLINE_TRAIN__{setting}": value})
