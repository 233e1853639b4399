"""Tables, digits and sums modulo p: split, scaling, classes, measures, refusals."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from spectrain import InputError
from spectrain.data import ModularDataModule, TableDataModule


@pytest.fixture
def table(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(3, [1, 10], (50, 2))
    rows = [f"{a},{b},{a + b},{'cold' if a < 3 else 'warm'}" for a, b in x]
    (tmp_path / "x.csv").write_text("a,b,sum,kind\n" + "\n".join(rows))
    (tmp_path / "numbers.csv").write_text("a,b,sum\n" + "\n".join(r.rsplit(",", 1)[0] for r in rows))
    return tmp_path


def test_split_and_scaling(table):
    data = TableDataModule(str(table / "numbers.csv"))
    rows = torch.cat(list(data.parts.values()))
    assert sorted(rows.tolist()) == list(range(50)), "each row in one part"
    assert {k: len(v) for k, v in data.parts.items()} == {"_train": 30, "": 10, "_test": 10}
    torch.testing.assert_close(data.train_x.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.train_x.std(0, correction=0), torch.ones(2))
    assert not torch.equal(data.parts["_test"], TableDataModule(str(table / "numbers.csv"), seed=1).parts["_test"])
    assert (data.in_features, data.out_features, data.classes) == (2, 1, False)


def test_rmse_is_in_the_targets_unit(table):
    data = TableDataModule(str(table / "numbers.csv"))
    metrics = data.metrics()
    metrics.update(data.values + 1)
    found = metrics.compute()
    raw = np.loadtxt(table / "numbers.csv", delimiter=",", skiprows=1)[data.parts["_train"], 2]
    assert float(found["rmse"]) == pytest.approx(raw.std(), rel=1e-5)
    assert set(found) == {f"{m}{p}" for m in ("rmse", "r2") for p in ("", "_train", "_test")}
    test = data.values[data.parts["_test"]]
    assert float(found["r2_test"]) == pytest.approx(1 - 1 / float(test.var(correction=0)), rel=1e-4)


@pytest.mark.parametrize("target", ["kind", 3, -1])
def test_texts_are_classes(table, target):
    (table / "k.csv").write_text("\n".join(line for line in (table / "x.csv").read_text().splitlines()))
    data = TableDataModule(str(table / "k.csv"), target)
    assert data.labels.tolist() == ["cold", "warm"] and data.in_features == 3
    x = data.points * 1.0
    assert data.values.sum(1).eq(1).all() and len(x) == 50
    share = data.train_y.mean(0)
    torch.testing.assert_close(data.target_mean.softmax(0), share)
    assert float(data.loss(data.values, data.values)) == pytest.approx(
        float(functional.cross_entropy(data.values, data.values.argmax(1)))
    )


def test_cross_entropys_residual_is_its_gradient(table):
    data = TableDataModule(str(table / "x.csv"))
    output = torch.randn(len(data.train_x), 2, dtype=torch.double, requires_grad=True)
    data.loss(output, data.train_y.double()).backward()
    torch.testing.assert_close(data.residual(output.detach()) / len(output), output.grad)


def test_whole_numbers_are_classes_unless_told_otherwise(tmp_path):
    np.save(tmp_path / "x.npy", np.c_[np.random.default_rng(0).normal(size=40), np.arange(40) % 3])
    assert TableDataModule(str(tmp_path / "x.npy")).out_features == 3
    assert TableDataModule(str(tmp_path / "x.npy"), task="regression").out_features == 1
    np.save(tmp_path / "one.npy", np.ones((40, 2)))
    with pytest.raises(InputError, match="one class only"):
        TableDataModule(str(tmp_path / "one.npy"))


@pytest.mark.parametrize(("name", "outputs"), [("diabetes", 1), ("wine", 3), ("breast_cancer", 2), ("digits", 10)])
def test_what_scikit_learn_ships(name, outputs):
    data = TableDataModule(f"sklearn:{name}", standardize="all" if name == "digits" else "columns")
    assert data.out_features == outputs and torch.isfinite(data.points).all()


def test_early_stopping_is_chosen_on_the_validation_rows(table):
    data = TableDataModule(str(table / "numbers.csv"))
    run = {"step": np.array([0, 5, 9]), "rmse": np.array([3.0, 1, 2]), "rmse_test": np.array([3.0, 2, 1])}
    found = data.headline({"modified spectrum": run, "without": {**run, "rmse": np.array([3.0, 2, 1])}})
    assert (found["stopped_test"], found["stopped_step"]) == (2, 5)
    assert (found["baseline_stopped_test"], found["baseline_stopped_step"]) == (1, 9)
    assert found["kernel_test"] < 0.5 * run["rmse_test"][0], "a sum of two columns is easy for the kernel"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": None}, r"data\.path=None is no table"),
        ({"path": "sklearn:wines"}, r"did you mean sklearn:wine\?"),
        ({"path": "sklearn:wine", "task": "ranking"}, r"data\.task='ranking' is not known"),
        ({"path": "sklearn:wine", "standardize": "rows"}, r"data\.standardize='rows'"),
        ({"path": "sklearn:wine", "test": 0}, r"data\.test=0 is not usable"),
        ({"path": "sklearn:wine", "test": 0.9}, r"leave -18 of 178 rows"),
        ({"target": "sums"}, r"data\.target='sums' is not a column.*did you mean sum\?"),
        ({"target": 4}, r"a number from -4 to 3"),
        ({"target": "sum"}, r"'(cold|warm)' in line 2, column 'kind'"),
        ({"task": "regression"}, r"'(cold|warm)' in line 2, column 'kind'"),
    ],
)
def test_refused(table, settings, said):
    with pytest.raises(InputError, match=said):
        TableDataModule(**{"path": str(table / "x.csv"), **settings})


def test_sums_modulo_p():
    data = ModularDataModule(7, 0.6)
    a, b = data.points[:, :7].argmax(1), data.points[:, 7:].argmax(1)
    assert len(data.points) == 49 and len(data.train_x) == 29
    assert torch.equal(data.values.argmax(1), (a + b) % 7)
    assert len({(int(i), int(j)) for i, j in zip(a, b, strict=True)}) == 49
    assert ModularDataModule(7, criterion="mse").loss is functional.mse_loss


def test_steps_to_fit_and_to_generalise():
    step = np.arange(4) * 10
    run = {"step": step, "accuracy_train": np.array([0, 1, 1, 1.0]), "accuracy": np.array([0, 0.1, 0.5, 0.96])}
    never = {**run, "accuracy": np.zeros(4)}
    found = ModularDataModule(5).headline({"modified spectrum": run, "without": never})
    assert (found["steps_to_fit"], found["steps_to_generalise"], found["delay"]) == (10, 30, 20)
    assert (found["baseline_steps_to_fit"], found["baseline_steps_to_generalise"]) == (10, None)
    assert found["baseline_delay"] is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"modulus": 1}, r"data\.modulus=1"),
        ({"modulus": 500}, r"data\.modulus=500 has 250000 pairs"),
        ({"train_share": 1.0}, r"data\.train_share=1\.0"),
        ({"criterion": "hinge"}, r"data\.criterion='hinge'"),
    ],
)
def test_modular_refused(settings, said):
    with pytest.raises(InputError, match=said):
        ModularDataModule(**settings)
