"""An audit file names many checkpoints in one line."""

from __future__ import annotations

import http.server
import json
import shutil
import threading

import fsspec
import pytest
import yaml
from small_inputs import audit
from tiny_models import PARAPHRASER, save_adapter

from raymia.inputs.base import Problems
from raymia.inputs.checkpoints import expand_targets
from raymia.modalities.resolve import resolve_inputs
from raymia.run.outcome import _audit_yaml
from raymia.spec import ImageRecordsSpec, TargetSetSpec, TextRecordsSpec
from raymia.spec.file import load_spec, parse_spec
from raymia.storage.manifest import write_manifest
from raymia.util.errors import InputError


@pytest.fixture
def made(tmp_path, tiny_gpt2):
    return lambda *targets: audit(
        tmp_path / "audit", tiny_gpt2, PARAPHRASER, targets=list(targets), neighbors=None,
        references=None,
    )  # fmt: skip


def folders(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
    return root


def expanded(spec):
    problems = Problems()
    spec, places = expand_targets(spec, problems)
    problems.refuse()
    return {target.name: target for target in spec.targets}, places


def refused(spec):
    with pytest.raises(InputError) as caught:
        expanded(spec)
    return "\n".join(caught.value.problems)


# ------------------------------------------------------------------------- folders


def test_checkpoints_come_in_natural_order_under_what_differs_in_their_paths(made, tmp_path):
    root = folders(tmp_path / "runs", *(f"{run}/out/checkpoint-{n}"
                                        for run in ("b", "a") for n in (10, 2, 100)))  # fmt: skip
    (root / "a" / "out" / "checkpoint-3").write_text("a file is no checkpoint")
    targets, places = expanded(
        made({"model": f"{root}/*/out/checkpoint-*", "dtype": "bfloat16", "max_tokens": 64})
    )
    assert list(targets) == [f"{run}-checkpoint-{n}" for run in ("a", "b") for n in (2, 10, 100)]
    assert targets["a-checkpoint-10"].model == f"{root}/a/out/checkpoint-10"
    assert {(t.dtype, t.max_tokens) for t in targets.values()} == {("bfloat16", 64)}
    assert places[1] == "targets[0] (a-checkpoint-10)"


def test_names_stand_behind_the_name_of_their_pattern(made, tmp_path):
    one = folders(tmp_path / "one", "step 1", "step 2")
    two = folders(tmp_path / "two", "step 1")
    targets, _ = expanded(
        made({"name": "one", "models": f"{one}/*"}, {"name": "two", "models": [f"{two}/*"]})
    )
    assert list(targets) == ["one-step_1", "one-step_2", "two-step_1"]


def test_overlapping_patterns_name_a_checkpoint_once(made, tmp_path):
    root = folders(tmp_path / "runs", "a", "a/final", "b")
    targets, _ = expanded(made({"models": [f"{root}/a", f"{root}/*", f"{root}/a/final"]}))
    assert [(n, t.model) for n, t in targets.items()] == [
        ("a", f"{root}/a"), ("b", f"{root}/b"), ("a-final", f"{root}/a/final"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["c [1]", "c[1]", "c*"])
def test_a_folder_that_is_called_as_a_pattern_is_that_folder(made, tmp_path, name):
    root = folders(tmp_path / "runs", name, "c1")
    targets, _ = expanded(made({"models": f"{root}/{name}"}))
    assert [target.model for target in targets.values()] == [f"{root}/{name}"]


def test_a_folder_that_is_called_as_a_pattern_may_be_on_another_machine(made):
    fs = fsspec.filesystem("memory")
    for folder in ("c [1]", "c 1"):
        fs.pipe_file(f"/signs/{folder}/config.json", b"{}")
    targets, _ = expanded(made({"models": "memory://signs/c [1]"}))
    assert [target.model for target in targets.values()] == ["memory://signs/c [1]"]


def test_names_that_would_be_equal_are_refused(made, tmp_path):
    root = folders(tmp_path, "x/checkpoint-1", "y/checkpoint-1")
    says = refused(made(*({"models": f"{root}/{run}/checkpoint-*"} for run in "xy")))
    assert "'checkpoint-1' would be the name of more than one checkpoint" in says
    assert "targets[0] (checkpoint-1), targets[1] (checkpoint-1)" in says


def test_a_folder_on_any_filesystem_can_be_looked_through(made):
    fs = fsspec.filesystem("memory")
    for n in (10, 9):
        fs.pipe_file(f"/patterns/run/checkpoint-{n}/config.json", b"{}")
    targets, _ = expanded(made({"models": "memory://patterns/run/checkpoint-*"}))
    assert [t.model for t in targets.values()] == [
        f"memory://patterns/run/checkpoint-{n}" for n in (9, 10)
    ]  # fmt: skip
    assert fs.exists(fs._strip_protocol(targets["checkpoint-9"].model) + "/config.json")


def test_a_pattern_without_a_match_says_what_is_there_instead(made, tmp_path):
    root = folders(tmp_path / "runs", "a/step-1", "a/step-12", "a/step-3")
    says = refused(made({"model": f"{root}/*/checkpoint-*"}))
    assert says == (
        f"targets[0]: no folder matches {root}/*/checkpoint-*; in {root}/a there is: "
        "step-1, step-3, step-12"
    )
    assert f"in {tmp_path} there is: " in refused(made({"models": f"{tmp_path}/run/*"}))


def test_a_matched_folder_that_is_no_checkpoint_is_refused_by_name(made, tmp_path, tiny_gpt2):
    shutil.copytree(tiny_gpt2, tmp_path / "runs" / "checkpoint-1")
    folders(tmp_path / "runs", "logs")
    (tmp_path / "runs" / "logs" / "events.out").touch()
    with pytest.raises(InputError) as caught:
        resolve_inputs(made({"models": f"{tmp_path}/runs/*"}))
    (says,) = caught.value.problems
    assert says == (
        f"targets[0] (logs).model: {tmp_path}/runs/logs has no config.json (found: events.out)"
    )


def test_patterns_are_relative_to_the_audit_file_and_the_report_shows_both(
    made, tmp_path, tiny_gpt2
):
    content = yaml.safe_load(yaml.safe_dump(made({"name": "x", "model": "x"}).model_dump()))
    content["targets"] = [{"models": "runs/checkpoint-*"}]
    for n in (2, 10):
        shutil.copytree(tiny_gpt2, tmp_path / "runs" / f"checkpoint-{n}")
    (tmp_path / "audit.yaml").write_text(yaml.safe_dump(content))
    spec = load_spec(tmp_path / "audit.yaml")
    inputs = resolve_inputs(spec)
    assert list(inputs.targets) == ["checkpoint-2", "checkpoint-10"]
    shown = _audit_yaml(inputs)
    assert f"#   - {tmp_path}/runs/checkpoint-*" in shown
    again = parse_spec(yaml.safe_load(shown), "report")
    assert again == inputs.spec
    assert [target.model for target in again.targets] == [
        f"{tmp_path}/runs/checkpoint-{n}" for n in (2, 10)
    ]


# --------------------------------------------------------------- adapters, manifests


def test_adapters_of_one_base(made, tmp_path, tiny_gpt2):
    for n in (2, 11):
        save_adapter(tmp_path / "lora" / f"checkpoint-{n}", tiny_gpt2, seed=n)
    spec = made({"model": str(tiny_gpt2), "adapters": f"{tmp_path}/lora/*"})
    inputs = resolve_inputs(spec)
    assert list(inputs.targets) == ["checkpoint-2", "checkpoint-11"]
    assert {t.path for t in inputs.targets.values()} == {str(tiny_gpt2)}
    assert [t.adapter for t in inputs.targets.values()] == [
        f"{tmp_path}/lora/checkpoint-{n}" for n in (2, 11)
    ]


def test_manifest_of_a_training_names_its_checkpoints(made, tmp_path):
    listed = [{"folder": f"checkpoint-{n}", "epoch": n} for n in (50, 100)]
    write_manifest(tmp_path, {"data": "é", "checkpoints": listed}, ImageRecordsSpec.manifest)
    targets, _ = expanded(made({"name": "vae", "manifest": f"{tmp_path}/manifest.json"}))
    assert {name: t.model for name, t in targets.items()} == {
        f"vae-checkpoint-{n}": f"{tmp_path}/checkpoint-{n}" for n in (50, 100)
    }


@pytest.mark.parametrize("kind", [TextRecordsSpec.manifest, ImageRecordsSpec.manifest])
def test_manifest_that_was_edited_is_refused_and_one_that_was_never_sealed_is_read(
    made, tmp_path, kind
):
    whole = write_manifest(tmp_path, {"checkpoints": [{"folder": "checkpoint-50"}]}, kind)
    entry = {"manifest": f"{tmp_path}/manifest.json"}
    for key in ("seal", "checkpoints"):
        edited = {**whole, key: [{"folder": "another"}]}
        (tmp_path / "manifest.json").write_text(json.dumps(edited))
        assert "was edited after the training" in refused(made(entry))
    (tmp_path / "manifest.json").write_text(json.dumps({"checkpoints": whole["checkpoints"]}))
    assert [t.model for t in expanded(made(entry))[0].values()] == [f"{tmp_path}/checkpoint-50"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_table_of_names_and_paths(made, tmp_path, suffix):
    rows = [("first", "a/b"), ("last", "/abs/c")]
    text = {
        "csv": "path,name\n" + "".join(f"{path},{name}\n" for name, path in rows),
        "jsonl": "".join(json.dumps({"name": n, "path": p}) + "\n" for n, p in rows),
    }[suffix]
    (tmp_path / f"list.{suffix}").write_text(text)
    spec = made({"manifest": f"{tmp_path}/list.{suffix}"})
    assert {n: t.model for n, t in expanded(spec)[0].items()} == {
        "first": f"{tmp_path}/a/b", "last": "/abs/c",
    }  # fmt: skip
    adapters, _ = expanded(made({"model": "base", "manifest": f"{tmp_path}/list.{suffix}"}))
    assert (adapters["first"].model, adapters["first"].adapter) == ("base", f"{tmp_path}/a/b")


def test_manifest_that_lists_nothing_is_refused(made, tmp_path):
    write_manifest(tmp_path, {"data": "x"}, TextRecordsSpec.manifest)
    assert "lists no checkpoints" in refused(made({"manifest": f"{tmp_path}/manifest.json"}))
    assert "no such file" in refused(made({"manifest": f"{tmp_path}/gone.csv"}))


# ------------------------------------------------------------------------ revisions


def test_revisions_are_named_by_themselves(made):
    targets, _ = expanded(made({"model": "org/lm", "revisions": ["step/2000", "main"]}))
    assert {n: (t.model, t.revision) for n, t in targets.items()} == {
        "step_2000": ("org/lm", "step/2000"), "main": ("org/lm", "main"),
    }  # fmt: skip


def test_pattern_of_revisions_needs_the_hub_and_says_so(made):
    says = refused(made({"model": "org/lm", "revisions": "step*"}))
    assert says.startswith(
        "targets[0].revisions: the model hub could not be asked which revisions of 'org/lm' match "
        "step* (OfflineModeIsEnabled); list them one by one"
    )


@pytest.fixture
def hub(monkeypatch):
    """A model hub on this machine that knows the tags and branches of one model."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path.startswith("/api/models/org/lm/refs")
            self.send_response(200 if known else 404)
            self.end_headers()
            if known:
                self.wfile.write(json.dumps(refs).encode())

        def log_message(self, *_):
            pass

    def ref(name):
        return {"name": name, "ref": f"refs/tags/{name}", "targetCommit": "0" * 40}

    refs = {"branches": [ref("main")], "converts": [],
            "tags": [ref(f"step{n}") for n in (1000, 20, 3)]}  # fmt: skip
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        "huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}"
    )
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_pattern_of_revisions_is_matched_with_tags_and_branches(made):
    targets, _ = expanded(made({"model": "org/lm", "revisions": ["main", "step*"]}))
    assert [t.revision for t in targets.values()] == ["main", "step3", "step20", "step1000"]
    says = refused(made({"model": "org/lm", "revisions": "epoch*"}))
    assert says.endswith("matches epoch*; there are: main, step3, step20, step1000")
    assert "HF_TOKEN" in refused(made({"model": "org/unknown", "revisions": "step*"}))


# ---------------------------------------------------------------------- the file's keys


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"models": "a/*", "manifest": "m.csv"}, "got models and manifest"),
        ({"adapters": "a/*"}, "adapters need the `model` that they are of"),
        ({"revisions": "a*"}, "revisions need the `model` that they are of"),
        ({"models": "a/*", "model": "b"}, "give either `model` or `models`"),
        ({"models": "a/*", "adapter": "b"}, "or several as `adapters`"),
        ({"models": "a/*", "revison": "b"}, "targets[0].revison: unknown key"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(made, target, says):
    with pytest.raises(InputError) as caught:
        made(target)
    assert says in str(caught.value)


def test_square_brackets_may_stand_in_the_name_of_one_folder(made, tmp_path):
    spec = made({"name": "one", "model": f"{tmp_path}/run[1]"})
    assert not isinstance(spec.targets[0], TargetSetSpec)
    assert expanded(spec)[0]["one"].model == f"{tmp_path}/run[1]"
