"""Exit codes and sentences: what a person can mend is one line and 2, a bug keeps its traceback and is 1."""

import errno
import os
from collections.abc import Callable

import pytest

from spectrain.cli.errors import run_guarded
from spectrain.errors import InputError


def raising(error: BaseException, cause: BaseException | None = None) -> Callable[[], None]:
    def fn() -> None:
        raise error from cause

    return fn


def os_error(code: int, path: str | None = "/data/runs/x.ckpt") -> OSError:
    return OSError(code, os.strerror(code), path)


def test_success_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(lambda: {"psnr": 3.0}) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("model.width=0 cannot be used."), "model.width=0 cannot be used."),
        (InputError("two\n   lines"), "two lines"),
        (os_error(errno.ENOSPC), "the disk is full (/data/runs/x.ckpt); free some space"),
        (os_error(errno.EDQUOT), "the disk quota is used up"),
        (os_error(errno.EACCES), "permission denied (/data/runs/x.ckpt); change its permissions"),
        (os_error(errno.EPERM), "permission denied"),
        (os_error(errno.EROFS), "the disk is read-only"),
        (os_error(errno.ENOTDIR), "not a directory (/data/runs/x.ckpt); give another path"),
        (os_error(errno.ENAMETOOLONG), "file name too long (/data"),
        (os_error(errno.ENOSPC, None), "the disk is full; free"),
        (
            RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0: file write failed"),
            "disk is full",
        ),
    ],
)
def test_what_a_person_can_mend_is_one_line_and_2(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_guarded(raising(error)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {said}") or said in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(InputError("no.")), debug=True) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1] == "error: no."


@pytest.mark.parametrize("error", [InputError("the cause."), os_error(errno.ENOSPC)])
def test_a_wrapped_error_is_still_the_persons(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(RuntimeError("wrapped"), cause=error)) == 2
    assert "wrapped" not in capsys.readouterr().err


def test_no_memory_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(MemoryError())) == 2
    assert "there is not enough memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a bug"),
        KeyError("x"),
        FileNotFoundError(errno.ENOENT, "x"),
        RuntimeError("CUDA"),
        OSError("x"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_keeps_its_traceback(error: Exception, debug: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(error), debug=debug) == 1
    err = capsys.readouterr().err
    assert err.count("Traceback (most recent call last)") == 1
    assert "error: " not in err.replace("Error: ", "")


def test_a_bug_after_something_else_was_handled_is_a_bug() -> None:
    def fn() -> None:
        try:
            raise os_error(errno.EACCES)
        except OSError:
            raise KeyError("bug in the handler")  # noqa: B904

    assert run_guarded(fn) == 1


def test_failing_to_clean_up_after_a_full_disk_is_a_full_disk(capsys: pytest.CaptureFixture[str]) -> None:
    def fn() -> None:
        try:
            raise os_error(errno.ENOSPC)
        except OSError:
            raise ValueError("I/O operation on closed file")  # noqa: B904

    assert run_guarded(fn) == 2
    assert "the disk is full" in capsys.readouterr().err


def test_ctrl_c_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_guarded(raising(KeyboardInterrupt())) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_an_exit_passes_through() -> None:
    with pytest.raises(SystemExit):
        run_guarded(raising(SystemExit(0)))


def test_errors_in_a_circle_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert run_guarded(raising(first, second)) == 1
