"""Build the sdist and from it the wheel, install that outside of the checkout, and run its demo.

    python tools/check_wheel.py        # `make test-wheel`; as long as the demo takes, and a minute

What raymia needs is shared with the environment that runs this, so that nothing is downloaded;
raymia itself is the wheel's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="raymia-wheel-") as folder:
        work = Path(folder)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(work), str(ROOT))
        (sdist,) = work.glob("*.tar.gz")
        (wheel,) = work.glob("*.whl")
        check_sdist(sdist)
        check_wheel(wheel)
        raymia = install(wheel, work / "environment")
        run(str(raymia), "demo", cwd=work)
        check_demo(work / "raymia-demo" / "report")
    say(f"{wheel.name} runs outside of the checkout")


def check_sdist(sdist: Path) -> None:
    """Refuse an sdist without the files that pages and lists of an install are in."""
    with tarfile.open(sdist) as packed:
        held = {name.partition("/")[2] for name in packed.getnames()}
    wanted = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "requirements/text.txt"}
    if wanted - held:
        sys.exit(f"{sdist.name} lacks {', '.join(sorted(wanted - held))}")


def check_wheel(wheel: Path) -> None:
    """Refuse a wheel that is not exactly the files of raymia/ that git knows."""
    listed = run("git", "ls-files", "-z", "raymia", cwd=ROOT, show=False)
    wanted = set(filter(None, listed.split("\0")))
    with zipfile.ZipFile(wheel) as packed:
        held = {name for name in packed.namelist() if ".dist-info/" not in name}
    if wanted != held:
        sys.exit(f"{wheel.name} lacks {sorted(wanted - held)}, and has {sorted(held - wanted)}")


def install(wheel: Path, environment: Path) -> Path:
    """Install a wheel into a new environment that sees the packages of this one; its command."""
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    own = ask(python, "import sysconfig; print(sysconfig.get_path('purelib'))")
    shared = [path for path in sys.path if Path(path).name == "site-packages"]
    Path(own, "shared.pth").write_text("\n".join(shared), encoding="utf-8")
    run(str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
        "--ignore-installed", str(wheel))  # fmt: skip
    where = ask(python, "import raymia; print(raymia.__file__)")
    if not where.startswith(str(environment)):
        sys.exit(f"raymia was imported from {where}, not from the wheel")
    return environment / "bin" / "raymia"


def ask(python: Path, script: str) -> str:
    return run(str(python), "-c", script, cwd=python.parent, show=False).strip()


def check_demo(report: Path) -> None:
    """Refuse a demo without a page, or whose run is not complete."""
    if "Plotly" not in (report / "report.html").read_text(encoding="utf-8"):
        sys.exit(f"{report} has a page without its scripts")
    if not json.loads((report / "metrics.json").read_text(encoding="utf-8"))["complete"]:
        sys.exit(f"the run in {report} is not complete")


def run(*command: str, cwd: Path | None = None, show: bool = True) -> str:
    """Run a command without this checkout on its path; what it printed, where it is not shown."""
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if show:
        say(" ".join(command))
    done = subprocess.run(
        command, cwd=cwd, env=outside, text=True, check=False,
        stdout=None if show else subprocess.PIPE,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"exit code {done.returncode}: {' '.join(command)}")
    return done.stdout or ""


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
