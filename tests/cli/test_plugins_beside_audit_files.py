"""Every command that reads an audit file takes the plugins that the file does not name."""

from __future__ import annotations

from pathlib import Path

import command_line
import pytest
import yaml
from small_inputs import answer, audit
from small_numbers import write_number_audit
from tiny_models import PARAPHRASER

from raymia.evidence.store import EvidenceStore
from raymia.modalities.resolve import resolve_inputs
from raymia.plan.planning import plan_audit
from raymia.spec.file import load_spec
from raymia.util import plugins

NUMBERS = Path(__file__).parents[1] / "support" / "number_modality.py"
ATTACK = """
from raymia.attacks.base import Attack, register

@register
class Mine(Attack):
    name = title = source = formula = "mine"
    asks = ("tokens",)

    def score(self, evidence):
        return [0.0 for _ in evidence.records]
"""


@pytest.fixture(autouse=True)
def _forgotten():
    """Nothing of the plugins of a test stays known after it."""
    before = {*plugins._loaded}
    yield
    for module in {*plugins._loaded} - before:
        plugins._forget(module)


@pytest.fixture
def plugin(tmp_path):
    """A file with an attack."""
    file = tmp_path / "mine.py"
    file.write_text(ATTACK, encoding="utf-8")
    return file


@pytest.fixture
def file(tmp_path, tiny_gpt2):
    """An audit file that names the attack, and not where it is."""
    parts = {"attacks": ["mine"], "references": None, "neighbors": None}
    spec = audit(tmp_path / "a", tiny_gpt2, PARAPHRASER, output=str(tmp_path / "run"), **parts)
    path = tmp_path / "audit.yaml"
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
    return path


def test_show_prints_a_record(file, plugin):
    refused = command_line.raymia("show", file, "--record", "")
    assert refused.returncode == 2
    assert "no attack 'mine'" in refused.stderr
    assert "as --plugin" in refused.stderr
    ids = resolve_inputs(load_spec(file, [str(plugin)])).records.ids
    shown = command_line.raymia("show", file, "--record", ids[0], "--plugin", plugin)
    assert shown.returncode == 0, shown.stderr
    assert "tokens, of which" in shown.stdout


@pytest.mark.parametrize("command", [["ls"], ["gc", "--delete"]])
def test_the_store_commands_know_what_is_needed(file, plugin, command):
    spec = load_spec(file, [str(plugin)])
    store = EvidenceStore(spec.store)
    (plan,) = plan_audit(resolve_inputs(spec), store)
    (planned,) = plan.target.questions
    answer(store, planned)
    plugins._forget(plugins.load_plugins([str(plugin)])[-1].module)
    refused = command_line.raymia("store", *command, spec.store, file)
    assert refused.returncode == 2
    assert "no attack 'mine'" in refused.stderr
    done = command_line.raymia("store", *command, spec.store, file, "--plugin", plugin)
    assert done.returncode == 0, done.stderr
    assert ("target:one" in done.stdout) == (command == ["ls"])
    assert list(Path(spec.store, planned.key.folder).glob("*.parquet"))


def test_status_reads_an_audit_file_whose_kind_of_records_is_of_a_plugin(tmp_path):
    file = write_number_audit(tmp_path)
    refused = command_line.raymia("status", file)
    assert refused.returncode == 2
    assert "tag 'number'" in refused.stderr
    found = command_line.raymia("status", file, "--plugin", NUMBERS)
    assert str(tmp_path / "run") in found.stderr
