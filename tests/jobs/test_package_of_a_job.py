"""What a job takes along of an audit, and what is refused since it could not run there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from small_training import tiny, train, write_training

import raymia.modalities  # noqa: F401 (registers the kinds of records)
from raymia.engine.on_ray.package import AUDIT_FILE, pack
from raymia.storage.manifest import MANIFEST_FILE
from raymia.util.errors import InputError


def audit(folder: Path, **content: Any) -> Path:
    file = folder / AUDIT_FILE
    usual = {
        "records": {"members": "members.jsonl", "non_members": "s3://bucket/others.jsonl"},
        "targets": [{"name": "t", "model": "org/model"}],
        "store": "s3://bucket/store", "output": "s3://bucket/run",
    }  # fmt: skip
    whole = {key: value for key, value in {**usual, **content}.items() if value is not None}
    file.write_text(yaml.safe_dump(whole))
    (folder / "members.jsonl").write_text('{"text": "x"}\n')
    return file


def written(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def problems(file: Path) -> list[str]:
    with pytest.raises(InputError) as caught:
        pack(file)
    return [one.removeprefix(f"{file}: ") for one in caught.value.problems]


def test_patterns_mean_the_files_that_they_mean_to_an_audit(tmp_path: Path) -> None:
    written(
        tmp_path, "data/part-0.jsonl", "data/part-1.jsonl", "data/other.jsonl",
        "data/part-[2].jsonl", "more/a/x.jsonl", "more/.b/x.jsonl", "more/.hidden.jsonl",
    )  # fmt: skip
    some = ["data/part-?.jsonl", "data/part-[2].jsonl", "m*"]
    file = audit(tmp_path, records={"members": some, "non_members": "s3://bucket/others.jsonl"})
    assert set(pack(file).files) == {
        AUDIT_FILE, "members.jsonl", "data/part-0.jsonl", "data/part-1.jsonl",
        "data/part-[2].jsonl", "more/a/x.jsonl",
    }  # fmt: skip
    file = audit(tmp_path, records={"members": ["data/pert-*.jsonl", "../*.jsonl"]})
    (tmp_path.parent / "above.jsonl").write_text("")
    assert problems(file) == [
        "data/pert-*.jsonl: no such file, and no file matches it",
        "../above.jsonl is not below the audit file's folder, so a job cannot carry it; give an "
        "absolute path that every machine sees, or a URL",
    ]


def test_a_folder_that_is_linked_is_taken_along(tmp_path: Path) -> None:
    written(tmp_path, "far/folder/x.jsonl", "here/data/y.jsonl")
    (tmp_path / "here" / "data" / "linked").symlink_to(tmp_path / "far" / "folder")
    file = audit(tmp_path / "here", records={"members": "data"})
    assert set(pack(file).files) == {AUDIT_FILE, "data/y.jsonl", "data/linked/x.jsonl"}


@pytest.mark.parametrize(
    "target",
    [
        {"models": "runs/checkpoint-*"},
        {"models": ["s3://bucket/runs/*", "runs/checkpoint-*"]},
        {"model": "runs/checkpoint-*"},
        {"model": "org/model", "adapters": "runs/checkpoint-*"},
        {"manifest": "runs/manifest.json"},
        {"manifest": "runs/targets.csv"},
        {"name": "t", "model": "org/model", "trained_by": "runs/manifest.json"},
    ],
)
def test_checkpoints_beside_the_audit_are_refused_however_they_are_named(
    tmp_path: Path, target: dict[str, Any]
) -> None:
    written(tmp_path, "runs/checkpoint-1/model.safetensors")
    listed = {"checkpoints": [{"folder": "checkpoint-1"}]}
    (tmp_path / "runs" / "manifest.json").write_text(json.dumps(listed))
    (tmp_path / "runs" / "targets.csv").write_text("name,path\na,s3://b/a\nb,checkpoint-1\n")
    (said,) = problems(audit(tmp_path, targets=[target]))
    assert said.startswith("runs/")
    assert said.endswith(
        " is or names checkpoints beside the audit file, which a job does not carry to the "
        "cluster; give an absolute path that every machine sees, an s3:// URL or a hub name"
    )


def test_shadows_beside_the_audit_are_refused(tmp_path: Path) -> None:
    written(tmp_path, "out/shadows/manifest.json")
    shadows = {"s": {"kind": "shadows", "folder": "out/shadows"}}
    (said,) = problems(audit(tmp_path, references=shadows))
    assert said.startswith("out/shadows is or names checkpoints beside the audit file")


def test_a_training_beside_the_audit_is_refused(tmp_path: Path) -> None:
    train(write_training(tmp_path, tiny("llama")))
    file = audit(tmp_path, from_training="out", records=None, targets=None)
    (said,) = problems(file)
    assert said == (
        "from_training is out, a training beside the audit file, which a job does not carry to "
        "the cluster; give an absolute path that every machine sees"
    )
    audit(tmp_path, from_training=str(tmp_path / "out"), records=None, targets=None)
    assert set(pack(file).files) == {AUDIT_FILE}
    manifest = tmp_path / "out" / MANIFEST_FILE
    (said, *_) = problems(manifest)
    assert said.startswith(f"{manifest} is the manifest of a training, whose checkpoints a job")


def test_a_table_of_checkpoints_elsewhere_is_taken_along(tmp_path: Path) -> None:
    (tmp_path / "targets.csv").write_text("name,path\na,s3://bucket/a\nb,/shared/b\n")
    package = pack(audit(tmp_path, targets=[{"manifest": "targets.csv"}]))
    assert set(package.files) == {AUDIT_FILE, "members.jsonl", "targets.csv"}


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_images_that_a_table_names_go_along_with_it(tmp_path: Path, form: str) -> None:
    written(tmp_path, "images/1.png", "data/2.png", "data/not-named.png")
    names = ["../images/1.png", "2.png", "2.png", "gone.png", "/shared/3.png", "s3://b/4.png"]
    table = tmp_path / "data" / f"train.{form}"
    if form == "csv":
        table.write_text("image\n" + "".join(f"{name}\n" for name in names))
    elif form == "jsonl":
        table.write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    else:
        pq.write_table(
            pa.table({"image": [{"bytes": None, "path": name} for name in names]}), table
        )
    records = {"kind": "image", "members": f"data/*.{form}", "image_column": "image"}
    file = audit(tmp_path, records=records)
    expected = {AUDIT_FILE, f"data/train.{form}", "images/1.png", "data/2.png"}
    assert set(pack(file).files) == expected
    inner = tmp_path / "data"
    assert problems(audit(inner, records={**records, "members": f"train.{form}"})) == [
        "../images/1.png is not below the audit file's folder, so a job cannot carry it; give an "
        "absolute path that every machine sees, or a URL"
    ]


def test_a_folder_that_is_called_as_a_table_names_images_relative_to_itself(tmp_path: Path) -> None:
    written(tmp_path, "data/1.png", "1.png", "data/train.parquet/2.png")
    table = pa.table({"image": ["../1.png", "2.png"]})
    pq.write_table(table, tmp_path / "data" / "train.parquet" / "part-0.parquet")
    records = {"kind": "image", "members": "data/train.parquet", "image_column": "image"}
    inside = {f"data/train.parquet/{name}" for name in ("2.png", "part-0.parquet")}
    expected = {AUDIT_FILE, "data/1.png", *inside}
    assert set(pack(audit(tmp_path, records=records)).files) == expected


def test_tables_that_are_too_large_to_carry_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> list[str]:
        raise AssertionError("the table is read")

    monkeypatch.setattr("raymia.records.image_files.read_rows", read)
    (tmp_path / "train.parquet").touch()
    os.truncate(tmp_path / "train.parquet", 101 * 2**20)
    records = {"kind": "image", "members": "train.parquet", "image_column": "image"}
    assert problems(audit(tmp_path, records=records)) == [
        "the files beside it have 101 MiB, and a job carries 100; put them into a shared folder or "
        "object storage"
    ]
