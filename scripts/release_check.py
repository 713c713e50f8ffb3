"""Build wheel and sdist, and test them in new environments of each supported Python that the machine has."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ("3.11", "3.12", "3.13")
COMMANDS = (
    ("list",),
    ("eval", "efficientnet_lite0", "--dataset", "digits", "--per-class", "2", "--epochs", "1", "--out", "run"),
)


def main() -> int:
    """Check the distributions on each version of Python; return 1 if the machine has none of the versions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", default=",".join(SUPPORTED), help="versions of Python, separated by commas")
    versions = parser.parse_args().versions.split(",")
    found = {version: interpreter for version in versions if (interpreter := find_interpreter(version))}
    for version in versions:
        if version not in found:
            print(f"skipped: Python {version} is not on this machine")
    with tempfile.TemporaryDirectory(prefix="zoo-release-") as folder:
        wheel, sdist = build(Path(folder))
        for number, interpreter in enumerate(found.values()):
            check([wheel, sdist] if number == 0 else [wheel], interpreter, Path(folder))
    print(f"checked on Python {', '.join(found)}" if found else "nothing was checked")
    return int(not found)


def find_interpreter(version: str) -> Path | None:
    """Return a working interpreter of a Python version from PATH or pyenv, or ``None``."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")
    candidates = [Path(on_path)] if on_path else []
    for path in [*candidates, *sorted(pyenv.glob(f"{version}.*/bin/python{version}"))]:
        if subprocess.run([path, "-c", "import ensurepip, venv"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist in a folder, and build the wheel from the sdist."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    print(f"built {wheel.name}, {sdist.name}")
    return wheel, sdist


def check(distributions: list[Path], interpreter: Path, folder: Path) -> None:
    """Install each distribution in turn in one new environment, and run a few commands after each installation."""
    environment = folder / "environment"
    run(interpreter, "-m", "venv", environment, cwd=folder)
    pip = (environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    for number, distribution in enumerate(distributions):
        wanted = ("--no-deps", "--force-reinstall", distribution) if number else (f"{distribution}[demo]",)
        run(*pip, "--constraint", ROOT / "constraints.txt", *wanted, cwd=folder)
        try_commands(environment / "bin" / "zoo", folder)
        print(f"{interpreter.name}: {distribution.name} works", flush=True)
    shutil.rmtree(environment)


def try_commands(zoo: Path, folder: Path) -> None:
    """Run a few commands of the installed zoo outside of the checkout, with a temporary home folder."""
    version = zoo_version()
    with tempfile.TemporaryDirectory(dir=folder) as home:
        printed = run(zoo, "--version", cwd=Path(home), home=home)
        if version not in printed:
            raise SystemExit(f"zoo --version printed {printed.strip()!r}; expected {version}")
        for arguments in COMMANDS:
            run(zoo, *arguments, cwd=Path(home), home=home)


def zoo_version() -> str:
    """Return the version of this checkout."""
    sys.path.insert(0, str(ROOT))
    from zoo._version import __version__

    return __version__


def run(*command: str | Path, cwd: Path, home: str | None = None) -> str:
    """Run a program and return its output; if the program fails, exit with its output as the message."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ZOO_"))}
    clean |= {"HOME": home, "XDG_CACHE_HOME": home, "HF_HUB_OFFLINE": "1"} if home else {}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    if done.returncode:
        words = " ".join(map(str, command))
        raise SystemExit(f"{' '.join(words)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
