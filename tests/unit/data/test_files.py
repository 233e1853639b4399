"""Files that a person names: what is read, and what is refused in a sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spectrain import InputError
from spectrain.data.files import read_sheet


def written(folder: Path, text: str, name: str = "x.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize(("mark", "given"), [(",", None), (";", None), ("\t", None), ("|", "|"), (" ", " ")])
def test_csv_with_a_header(tmp_path, mark, given):
    sheet = read_sheet(written(tmp_path, f"age{mark}height\n1{mark}2.5\n3{mark}-4e1\n\n"), given)
    assert sheet.names == ("age", "height")
    np.testing.assert_array_equal(sheet.numbers([1, 0]), [[2.5, 1], [-40, 3]])


def test_csv_without_a_header_and_with_one_column(tmp_path):
    sheet = read_sheet(written(tmp_path, "1\n2\n"))
    assert sheet.names == ("column_1",)
    np.testing.assert_array_equal(sheet.numbers([0]), [[1], [2]])


@pytest.mark.parametrize("kind", ["npy", "npz", "pt", "pt dict"])
def test_arrays(tmp_path, kind):
    values, path = np.arange(6.0).reshape(3, 2), str(tmp_path / f"x.{kind[:3].strip()}")
    if kind == "npy":
        np.save(path, values)
    elif kind == "npz":
        np.savez(path, anything=values)
    else:
        tensor = torch.from_numpy(values)
        torch.save({"x": tensor} if kind == "pt dict" else tensor, path)
    np.testing.assert_array_equal(read_sheet(path).numbers(range(2)), values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n3,\n", r"no value in line 3, column 'b'"),
        ("a,b\n1,2\nNA,4\n", r"no value in line 3, column 'a'"),
        ("a,b\n1,x7\n", r"has 'x7' in line 2, column 'b'; it must be a finite number"),
        ("a,b\n1,inf\n", r"'inf' in line 2"),
        ("a,b\n1,2\n3\n", r"1 cells in line 3 and 2 in the first"),
        ("a,a\n1,2\n", r"two columns named 'a'"),
        ("\n\n", r"holds no rows"),
        ("a,b\n", r"has a header and no rows"),
    ],
)
def test_csv_refused(tmp_path, text, said):
    def read():
        sheet = read_sheet(written(tmp_path, text))
        return sheet.numbers(range(len(sheet.names)))

    with pytest.raises(InputError, match=rf"^data\.path=\S+ .*{said}"):
        read()


def test_files_refused(tmp_path):
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.save(tmp_path / "code.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    np.save(tmp_path / "nan.npy", np.array([[0, 1], [2, np.nan]]))
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "broken.pt").write_bytes(b"no")
    (tmp_path / "x.docx").write_bytes(b"no")
    for name, said in {
        "two.npz": "2 arrays (a, b)",
        "text.npy": "not real numbers",
        "code.npy": "not a NumPy file of plain numbers",
        "cube.npy": "[rows, columns]",
        "list.pt": "holds a list",
        "broken.pt": "loaded safely",
        "x.docx": "must end in one of",
        "twoo.npz": "did you mean two.npz?",
        "": "directory",
    }.items():
        with pytest.raises(InputError) as caught:
            read_sheet(str(tmp_path / name))
        assert said in str(caught.value) and str(caught.value).startswith("data.path="), caught.value
    with pytest.raises(InputError, match=r"no value in line 2, column 'column_2'"):
        read_sheet(str(tmp_path / "nan.npy")).numbers(range(2))
    with pytest.raises(InputError, match=r"data\.delimiter='--'"):
        read_sheet(written(tmp_path, "1,2\n"), "--")


def test_a_quote_without_its_pair_is_said(tmp_path):
    with pytest.raises(InputError, match="a quote without its pair"):
        read_sheet(written(tmp_path, 'a,b\n1,"2\n' + "1,2\n" * 50_000))
