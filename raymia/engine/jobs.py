"""What the scripts that `ray job submit` runs have in common."""

from __future__ import annotations

from pathlib import Path

from raymia.spec import AuditSpec

WORKING_DIRS = "working_dir_files"
"""Ray unpacks a job's working directory below a folder of this name, and deletes it afterwards."""


def lost_folders(spec: AuditSpec) -> list[str]:
    """Warn of folders that Ray deletes with the job's working directory."""
    return [
        f"{key} is {url}, which is in the job's working directory: Ray deletes it after the job. "
        f"Give {key} an absolute path that every node shares, or a URL such as s3://bucket/folder"
        for key, url in (("store", spec.store), ("output", spec.output))
        if "://" not in url and WORKING_DIRS in Path(url).parts
    ]
