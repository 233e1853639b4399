"""Batches as a pure function of (seed, number), and a run that resumes with the batch that was next."""

import itertools
import warnings

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from spectrain.data import ImageDataModule, coordinate_grid
from spectrain.data.batches import Chunks, EndlessBatches
from spectrain.errors import InputError, SpectrainWarning


def batches(n, size, seed=0, start=0, shard=(0, 1)):
    x = torch.arange(2 * n, dtype=torch.float32).reshape(n, 2)
    return EndlessBatches(x, x[:, :1], size, seed, lambda: start, shard)


def take(iterable, k):
    return list(itertools.islice(iterable, k))


def test_coordinates_are_rows_and_columns_in_c_order():
    grid = coordinate_grid(3, 5)
    assert grid.shape == (15, 2)
    assert grid.dtype == torch.float32
    np.testing.assert_allclose(grid.reshape(3, 5, 2)[:, 0, 0], [-1, 0, 1])
    np.testing.assert_allclose(grid.reshape(3, 5, 2)[0, :, 1], [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_array_equal(coordinate_grid(1, 2), [[0, -1], [0, 1]])
    np.testing.assert_array_equal(coordinate_grid(1, 1), [[0, 0]])


def test_attributes_of_the_default():
    module = ImageDataModule()
    assert module.image.shape == (64, 64, 1)
    assert module.grid_shape == (64, 64)
    assert (module.in_features, module.out_features) == (2, 1)
    assert module.train_x.shape == (4096, 2)
    assert module.train_y.shape == (4096, 1)
    assert module.heldout_mask is None
    torch.testing.assert_close(module.target_mean, module.image.mean((0, 1)))
    assert module.image.abs().max() <= 1


def test_values_belong_to_their_coordinates(tmp_path):
    stored = np.random.default_rng(0).integers(0, 255, (5, 9, 3), dtype=np.uint8)
    Image.fromarray(stored).save(tmp_path / "x.png")
    module = ImageDataModule(str(tmp_path / "x.png"), size=None, holdout=True)
    for x, y, pixel in zip(module.train_x, module.train_y, module.train_rows, strict=True):
        row, column = round(float(x[0] + 1) * 2), round(float(x[1] + 1) * 4)
        assert pixel == row * 9 + column
        torch.testing.assert_close(y, torch.from_numpy(stored[row, column] / 127.5 - 1).float())


def test_holdout_is_a_checkerboard():
    module = ImageDataModule(size=8, holdout=True)
    assert module.heldout_mask.shape == (8, 8)
    assert module.heldout_mask[0, :4].tolist() == [False, True, False, True]
    assert module.heldout_mask[1, :4].tolist() == [True, False, True, False]
    assert len(module.train_x) == 32
    assert not module.heldout_mask.flatten()[module.train_rows].any()
    x, _, index = next(iter(module.train_dataloader()))
    torch.testing.assert_close(x, module.train_x[index])
    assert sum(len(x) for x, _, _ in module.val_dataloader()) == 64


def test_the_full_batch_is_the_same_tensors():
    module = ImageDataModule(size=8)
    first, second = take(module.train_dataloader(), 2)
    assert first is second
    assert first[0].data_ptr() == module.train_x.data_ptr()
    assert first[1].data_ptr() == module.train_y.data_ptr()
    assert first[2].tolist() == list(range(64))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 50), st.data(), st.integers(0, 2**31))
def test_an_epoch_visits_no_point_twice_and_all_up_to_the_remainder(n, data, seed):
    size = data.draw(st.integers(1, n))
    per_epoch = n // size
    loader = batches(n, size, seed)
    for epoch in range(2):
        drawn = [loader.rows(epoch * per_epoch + k) for k in range(per_epoch)]
        assert all(len(rows) == size for rows in drawn)
        rows = torch.cat(drawn)
        assert len(rows.unique()) == len(rows) == n - n % size


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 40), st.integers(0, 5))
def test_batch_t_is_a_pure_function_of_seed_and_t(start, seed):
    from_zero = take(batches(23, 5, seed), start + 3)[start:]
    for (x, y, index), (x2, y2, index2) in zip(from_zero, take(batches(23, 5, seed, start), 3), strict=True):
        assert torch.equal(index, index2)
        assert torch.equal(x, x2)
        assert torch.equal(y, y2)
        assert torch.equal(x[:, 0], 2.0 * index)


def test_seeds_and_epochs_differ_and_the_global_generators_are_untouched():
    torch.manual_seed(0)
    np.random.seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    drawn = [tuple(batches(64, 64, seed).rows(t).tolist()) for seed in (0, 1) for t in (0, 1)]
    assert len(set(drawn)) == 4
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])


@pytest.mark.parametrize("size", [None, 10])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_ranks_share_the_global_batch(size, world):
    whole = take(batches(21, size, start=3), 2)
    shares = [take(batches(21, size, start=3, shard=(rank, world)), 2) for rank in range(world)]
    for t, (_, _, index) in enumerate(whole):
        parts = [share[t][2] for share in shares]
        assert sorted(torch.cat(parts).tolist()) == sorted(index.tolist())
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_chunks_are_all_points_in_order():
    module = ImageDataModule(size=10, chunk_size=33, holdout=True)
    chunks = list(module.val_dataloader())
    assert [len(x) for x, _, _ in chunks] == [33, 33, 33, 1]
    assert len(module.val_dataloader()) == 4
    torch.testing.assert_close(torch.cat([y for _, y, _ in chunks]).reshape(module.image.shape), module.image)
    assert torch.cat([index for _, _, index in chunks]).tolist() == list(range(100))
    assert isinstance(module.val_dataloader(), Chunks)


def test_bad_arguments():
    for value in (0, -3, 2.5, float("nan"), True, "8"):
        with pytest.raises(InputError, match=r"^data\.batch_size=.*1 or more, or null"):
            ImageDataModule(size=8, batch_size=value)
        with pytest.raises(InputError, match=r"^data\.chunk_size="):
            ImageDataModule(size=8, chunk_size=value)
    with pytest.raises(InputError, match=r"^data\.seed=-1"):
        ImageDataModule(size=8, seed=-1)
    with pytest.raises(InputError, match=r"^data\.holdout=true needs"):
        ImageDataModule(size=1, holdout=True)


def test_a_batch_above_the_data_is_clipped_with_a_warning():
    with pytest.warns(SpectrainWarning, match=r"data\.batch_size=65 is above the 64 training points"):
        module = ImageDataModule(size=8, batch_size=65)
    assert len(next(iter(module.train_dataloader()))[0]) == 64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageDataModule(size=8, batch_size=64)


# --- with a real trainer


class Recorder(pl.LightningModule):
    """Remembers the rows of every batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(2, 1)
        self.seen, self.pointers = [], set()

    def training_step(self, batch, _):
        x, y, index = batch
        self.seen.append(tuple(index.tolist()))
        self.pointers.add(x.data_ptr())
        return (self.layer(x) - y).square().mean()

    def validation_step(self, batch, _):
        self.layer(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder, max_steps, ckpt_path=None, accumulate=1, module=None, **kwargs):
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        accumulate_grad_batches=accumulate,
    )
    model, module = Recorder(), module or ImageDataModule(size=8, **kwargs)
    trainer.fit(model, datamodule=module, ckpt_path=ckpt_path)
    return trainer, model


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_run_sees_the_batches_of_an_uninterrupted_one(tmp_path, accumulate):
    options = {"batch_size": 24, "seed": 3, "accumulate": accumulate}  # 64 // 24 = 2 batches an epoch
    _, whole = fit(tmp_path, 7, **options)
    assert len(whole.seen) == 7 * accumulate
    first, half = fit(tmp_path, 4, **options)
    first.save_checkpoint(tmp_path / "x.ckpt")
    _, rest = fit(tmp_path, 7, ckpt_path=tmp_path / "x.ckpt", **options)
    assert half.seen + rest.seen == whole.seen
    for a, b in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(a, b)


def test_resuming_with_another_accumulation_repeats_no_batch(tmp_path):
    _, whole = fit(tmp_path, 8, batch_size=24)
    first, half = fit(tmp_path, 2, batch_size=24, accumulate=2)
    first.save_checkpoint(tmp_path / "x.ckpt")
    _, rest = fit(tmp_path, 6, ckpt_path=tmp_path / "x.ckpt", batch_size=24)
    assert half.seen + rest.seen == whole.seen


def test_a_second_fresh_trainer_starts_from_the_first_batch(tmp_path):
    first, half = fit(tmp_path, 4, batch_size=24, accumulate=2)
    first.save_checkpoint(tmp_path / "x.ckpt")
    module = ImageDataModule(size=8, batch_size=24)
    fit(tmp_path, 5, ckpt_path=tmp_path / "x.ckpt", module=module)
    _, again = fit(tmp_path, 2, module=module)
    assert again.seen == half.seen[:2]


def test_state_without_a_trainer():
    module = ImageDataModule(size=8, batch_size=24)
    assert module.state_dict() == {"batches": 0, "steps": 0}
    module.load_state_dict({"batches": 5, "steps": 5})
    assert module.state_dict() == {"batches": 5, "steps": 5}
    fresh = ImageDataModule(size=8, batch_size=24)
    assert torch.equal(next(iter(module.train_dataloader()))[2], take(fresh.train_dataloader(), 6)[5][2])


def test_the_trainer_gets_the_full_batch_without_a_copy(tmp_path):
    _, model = fit(tmp_path, 4)
    assert model.seen == [tuple(range(64))] * 4
    assert len(model.pointers) == 1


def test_the_full_batch_goes_to_a_device_once():
    module = ImageDataModule(size=8)
    module.trainer = type("T", (), {"training": True, "global_rank": 0, "world_size": 1, "global_step": 0})()
    batch, device = next(iter(module.train_dataloader())), torch.device("meta")

    def move(what, where=device):
        return module.transfer_batch_to_device(what, where, 0)

    moved = move(batch)
    assert moved[0].device == device
    assert move(batch)[0] is moved[0]
    assert move(batch, torch.device("cpu"))[0].device.type == "cpu"
    assert len(move(tuple(part[:3] for part in batch), torch.device("cpu"))[0]) == 3
    kept = move(batch)
    module.trainer.training = False
    chunk = next(iter(module.val_dataloader()))
    assert move(chunk)[0] is not move(chunk)[0]
    module.trainer.training = True
    assert move(batch)[0] is kept[0]  # a validation in between does not push it out


def test_more_processes_than_points_of_a_batch():
    module = ImageDataModule(size=8, batch_size=3)
    module.trainer = type("T", (), {"global_rank": 0, "world_size": 4})()
    with pytest.raises(InputError, match=r"^data\.batch_size=3 is less than the 4 processes"):
        module.train_dataloader()


def test_noise_is_trained_on_and_the_clean_picture_measured():
    clean, noisy = ImageDataModule(size=32), ImageDataModule(size=32, noise=0.2)
    drawn = noisy.train_y - clean.train_y
    assert float(drawn.std()) == pytest.approx(0.2, rel=0.1) and abs(float(drawn.mean())) < 0.02
    assert torch.equal(noisy.train_y, ImageDataModule(size=32, noise=0.2).train_y)
    assert not torch.equal(noisy.train_y, ImageDataModule(size=32, noise=0.2, seed=1).train_y)
    metrics = noisy.metrics()
    metrics.update(clean.train_y)
    found = metrics.compute()
    assert float(found["psnr"]) == float("inf")
    assert float(found["psnr_noisy"]) == pytest.approx(10 * np.log10(4 / 0.04), abs=0.5)
    run = {"step": np.array([0, 5, 9]), "psnr": np.array([10.0, 25, 20])}
    found = noisy.headline({"modified spectrum": run, "without": run})
    assert (found["best_step"], found["baseline_best_psnr"]) == (5, 25)


def test_fewer_pixels_are_averages_at_their_centres():
    full, small = ImageDataModule(size=24), ImageDataModule(size=24, downsample=4)
    assert small.grid_shape == (6, 6) and small.train_x.shape == (36, 2)
    blocks = full.image.reshape(6, 4, 6, 4, 1).mean((1, 3)).flatten(0, 1)
    torch.testing.assert_close(small.train_y, blocks)
    centres = full.coordinates.reshape(6, 4, 6, 4, 2).mean((1, 3)).flatten(0, 1)
    torch.testing.assert_close(small.train_x, centres)
    metrics = small.metrics()
    for _, y, _ in small.val_dataloader():
        metrics.update(y)
    torch.testing.assert_close(metrics.reconstruction(), full.image)
    assert float(metrics.compute()["psnr"]) == float("inf")
    torch.testing.assert_close(small.residual(metrics.predictions()[small.train_rows]), torch.zeros(36, 1).double())
    assert 10 < small.headline({})["psnr_bicubic"] < 40


def test_an_evaluation_measures_the_full_picture_at_its_pixels():
    data = ImageDataModule(size=24, downsample=2)
    x, metrics, where = data.evaluation()
    assert torch.equal(x, data.points) and where == "at 24 x 24 pixels"
    x, metrics, where = data.evaluation(48)
    assert len(x) == 48 * 48 == metrics.target.numel() and where == "at 48 x 48 pixels"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"noise": -1}, r"data\.noise=-1"),
        ({"noise": "much"}, r"data\.noise='much'"),
        ({"downsample": 0}, r"data\.downsample=0"),
        ({"downsample": 2, "holdout": True}, r"data\.downsample=2.*data\.holdout=false"),
        ({"downsample": 13}, r"data\.downsample=13 is above the 12 pixels"),
    ],
)
def test_noise_and_fewer_pixels_refused(settings, said):
    with pytest.raises(InputError, match=said):
        ImageDataModule(size=12, **settings)


def test_a_folder_is_refused_with_the_command_that_fits_each_picture(tmp_path):
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"its 2 pictures .* -m data\.path=\S+/a\.jpg,\S+/b\.png$"):
        ImageDataModule(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="directory without pictures"):
        ImageDataModule(str(tmp_path / "empty"))
