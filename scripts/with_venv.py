"""Make .venv if it is missing, stale or half-made, then run a command in it. The Makefile's only helper.

    python3 scripts/with_venv.py [--args] COMMAND ...

`--args` appends the words of the environment variable SPECTRAIN_ARGS (make's ARGS), quoted as in a shell; nothing else
in it is expanded, so `ARGS='-m optimizer.lr=choice(1e-2,3e-3)'` needs no extra quotes.

The file .venv/spectrain-stamp tells what may be trusted. It says "incomplete" from before the first byte is installed,
and gets the real stamp only after everything was installed and imported once. Standard library only, and in a syntax
that old Pythons read (3.6 and later), so that they can say that they are too old.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from typing import NoReturn

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MINIMUM = (3, 11)
CANDIDATES = ("python3", "python3.13", "python3.12", "python3.11", "python3.14")
KEY_FILES = ("requirements.txt", "requirements-dev.txt", "pyproject.toml", "setup.py")
IMPORTS = "import torch, pytorch_lightning, hydra, wandb, spectrain"
STAMP = "spectrain-stamp"
INCOMPLETE = "incomplete"
# Of pip's lines, those that say what is going on.
PROGRESS_WORDS = ("Collecting", "Downloading", "Preparing", "Building", "Installing")


def say(message: str) -> None:
    """Progress goes to stderr: stdout belongs to the command."""
    print(message, file=sys.stderr, flush=True)


def dotted(version: tuple) -> str:
    """(3, 11) -> 3.11."""
    return ".".join(str(part) for part in version)


def fail(message: str) -> NoReturn:
    """One sentence and exit code 2; the caller's state on disk already says that nothing is finished."""
    say("error: " + message)
    sys.exit(2)


def content_key() -> str:
    """A hash of every file that decides what is installed."""
    digest = hashlib.sha256()
    for name in KEY_FILES:
        path = os.path.join(ROOT, name)
        if os.path.exists(path):
            with open(path, "rb") as file:
                data = file.read()
            digest.update(f"{name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def venv_python(venv: str) -> str:
    """The interpreter inside a virtual environment."""
    return os.path.join(venv, "bin", "python")


def probe(python: str) -> dict:
    """Version and prefix of an interpreter, or {} when it does not run (dangling link, pyenv shim, another machine)."""
    code = "import json, sys; print(json.dumps({'version': sys.version_info[:2], 'prefix': sys.prefix}))"
    try:
        out = subprocess.run([python, "-I", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        return dict(json.loads(out.stdout.decode()))
    except (OSError, ValueError, subprocess.CalledProcessError):
        return {}


def is_sound(venv: str) -> bool:
    """A virtual environment that runs, is new enough, and lies where it was made (not a moved or copied one)."""
    found = probe(venv_python(venv))
    if not found or tuple(found["version"]) < MINIMUM:
        return False
    # The scripts' first lines hold the folder where the environment was made; pyvenv.cfg alone would not tell.
    pip = os.path.join(venv, "bin", "pip")
    shebang = ""
    if os.path.exists(pip):
        with open(pip, "rb") as file:
            shebang = file.readline().decode("utf-8", "replace") + file.readline().decode("utf-8", "replace")
    in_place = not shebang or venv in shebang or os.path.realpath(venv) in shebang
    return in_place and os.path.realpath(found["prefix"]) == os.path.realpath(venv)


def read_stamp(venv: str) -> dict:
    """The stamp as a dictionary; {} when there is none or it cannot be read."""
    try:
        with open(os.path.join(venv, STAMP), encoding="utf-8") as file:
            stamp = json.load(file)
        return stamp if isinstance(stamp, dict) else {}
    except (OSError, ValueError):
        return {}


def write_stamp(venv: str, key: str) -> None:
    """Written beside and renamed, so that a stamp is either whole or absent."""
    path = os.path.join(venv, STAMP)
    found = probe(venv_python(venv))
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump({"key": key, "venv": venv, "version": found.get("version")}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def is_ready(venv: str) -> bool:
    """True when the stamp matches today's requirements, this folder, and an interpreter that still runs."""
    stamp = read_stamp(venv)
    if stamp.get("key") != content_key() or stamp.get("venv") != venv:
        return False
    found = probe(venv_python(venv))
    return bool(found) and found["version"] == stamp.get("version") and os.path.isdir(found["prefix"])


def pick_python() -> str:
    """The interpreter that runs this file, or a newer one on the path when it is too old."""
    if sys.version_info[:2] >= MINIMUM:
        # Not a virtual environment's own interpreter: the active one may be the .venv that is about to be removed.
        return str(getattr(sys, "_base_executable", None) or sys.executable)
    have = dotted(sys.version_info[:2])
    for name in CANDIDATES:
        path = shutil.which(name)
        if path and tuple(probe(path).get("version", ())) >= MINIMUM:
            say(f"Python {have} is too old for spectrain; using {name} instead.")
            return path
    fail(
        f"spectrain needs Python 3.11 or newer, and {sys.executable} is Python {have}; install a newer one "
        "and name it: make train PYTHON=/path/to/python3.12"
    )


def clean_environment() -> dict:
    """Without what would make pip look at, or install into, another place than .venv."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    environment["PIP_USER"] = "0"
    return environment


def run_logged(command: list, log_path: str) -> int:
    """Run a long command with its output in a log file and its last line, with the seconds, on the terminal."""
    last = [""]
    started = time.time()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def read() -> None:
        with open(log_path, "ab") as log:
            for line in process.stdout or ():
                log.write(line)
                text = line.decode("utf-8", "replace").strip()
                if text.startswith(PROGRESS_WORDS):
                    last[0] = text

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    tty = sys.stderr.isatty()
    next_line = 30.0
    try:
        while reader.is_alive():
            reader.join(0.5 if tty else 1.0)
            seconds = time.time() - started
            if tty:
                width = max(20, shutil.get_terminal_size().columns - 1)
                sys.stderr.write("\r\033[K" + f"  {seconds:4.0f} s  {last[0]}"[:width])
                sys.stderr.flush()
            elif seconds > next_line:
                say(f"  {seconds:4.0f} s  {last[0][:100]}")
                next_line += 30.0
        return process.wait()
    finally:
        if tty:
            sys.stderr.write("\r\033[K")
        if process.poll() is None:
            process.terminate()
            process.wait()


def create(python: str, venv: str) -> None:
    """An empty virtual environment with pip, in place of whatever was there."""
    if os.path.isfile(venv):
        os.unlink(venv)
    os.makedirs(venv, exist_ok=True)
    # First the mark, then the removal: a removal that is interrupted leaves nothing to trust either.
    write_stamp(venv, INCOMPLETE)
    for name in os.listdir(venv):
        path = os.path.join(venv, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif name != STAMP:
            os.unlink(path)
    code = run_logged([python, "-m", "venv", venv], os.path.join(venv, "install.log"))
    if code != 0:
        show_log(venv)
        fail(
            f"{python} -m venv failed with exit code {code}; on Debian and Ubuntu the package python3-venv is needed; "
            "or name another Python: make train PYTHON=/path/to/python3"
        )


def install(venv: str) -> None:
    """Requirements, then the package itself in editable mode, then one import of the large ones as a check."""
    python = venv_python(venv)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    steps = [
        ("pip install -r requirements-dev.txt", [*pip, "-r", "requirements-dev.txt"]),
        # setuptools is pinned above, so the build needs no second, hidden installation of it.
        ("pip install -e .", [*pip, "--no-deps", "--no-build-isolation", "-e", "."]),
        ("the first import", [python, "-c", IMPORTS]),
    ]
    for name, command in steps:
        code = run_logged(command, os.path.join(venv, "install.log"))
        if code != 0:
            show_log(venv)
            fail(
                f"{name} failed with exit code {code} (all of its output: .venv/install.log); .venv is incomplete and "
                "is made again by the next call"
            )


def show_log(venv: str) -> None:
    """The end of the log: the reason is nearly always in it."""
    with open(os.path.join(venv, "install.log"), encoding="utf-8", errors="replace") as file:
        for line in file.readlines()[-12:]:
            say("  | " + line.rstrip())


def ensure(venv: str) -> None:
    """Make, or bring up to date, the virtual environment; one process at a time."""
    if is_ready(venv):
        return
    with open(os.path.join(ROOT, ".venv.lock"), "w", encoding="utf-8") as lock:
        take_lock(lock)
        if is_ready(venv):
            return
        started, key, stamp = time.time(), content_key(), read_stamp(venv)
        if is_sound(venv) and stamp.get("key") != INCOMPLETE and stamp.get("venv", venv) == venv:
            say("Bringing .venv up to date with the requirements ...")
            write_stamp(venv, INCOMPLETE)
        else:
            python = pick_python()
            doing = "Making .venv again" if os.path.lexists(venv) else "Creating .venv"
            say(f"{doing} with Python {dotted(probe(python)['version'])} (about two minutes, once) ...")
            create(python, venv)
        install(venv)
        write_stamp(venv, key)
        say(f"  ready after {time.time() - started:.0f} s")


def take_lock(lock: object) -> None:
    """Wait for another installation in the same folder; where locks do not exist (some network disks), go on."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
    except BlockingIOError:
        say("Another process is installing .venv; waiting for it ...")
        fcntl.flock(lock, fcntl.LOCK_EX)  # type: ignore[arg-type]
    except OSError:
        pass


def extra_words() -> list:
    """The words of make's ARGS."""
    text = os.environ.get("SPECTRAIN_ARGS", "")
    try:
        return shlex.split(text)
    except ValueError as error:
        fail(f"ARGS cannot be read ({str(error).lower()}): {text}")


def main(words: list) -> None:
    """Ensure .venv, then become the command."""
    take_args = words[:1] == ["--args"]
    command = words[1:] if take_args else words
    command = command + (extra_words() if take_args else [])
    venv = os.path.join(ROOT, ".venv")
    try:
        ensure(venv)
    except KeyboardInterrupt:
        say("\nInterrupted; .venv is incomplete and is made again by the next call.")
        sys.exit(130)
    except OSError as error:
        fail(f"cannot make .venv: {error}")
    if not command:
        return
    os.environ["VIRTUAL_ENV"] = venv
    os.environ["PATH"] = os.path.join(venv, "bin") + os.pathsep + os.environ.get("PATH", "")
    os.environ.pop("PYTHONHOME", None)
    sys.stdout.flush()
    os.execv(os.path.join(venv, "bin", command[0]), command)


if __name__ == "__main__":
    main(sys.argv[1:])
