"""The published schema of metrics.json."""

import json
from pathlib import Path

import jsonschema
import pytest
from made_up_run import made_up_curves, made_up_result, made_up_scores

from raymia.report.files import write_run
from raymia.results.gate import decide_again

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "metrics.schema.json").read_text())


@pytest.fixture(scope="module")
def validator():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def test_what_is_written_follows_the_schema(tmp_path, validator):
    scores = made_up_scores()
    result = made_up_result(scores)
    result = result.model_copy(update={"gate": decide_again(result, ["any.auc > 0.5"])})
    write_run(str(tmp_path), result, [scores], made_up_curves(scores))
    content = json.loads((tmp_path / "metrics.json").read_text())
    validator.validate(content)
    for wrong in ({"seed": "seven"}, {"surprise": 1}, {"metrics": [{"kind": "guessed"}]}):
        assert not validator.is_valid(content | wrong)


def test_every_field_of_the_schema_is_described():
    silent = [
        f"{name}.{key}"
        for name, model in {"RunResult": SCHEMA, **SCHEMA["$defs"]}.items()
        for key, field in model.get("properties", {}).items()
        if "description" not in field and key not in ("kind", "a", "b") and "$ref" not in field
    ]
    assert silent == []
