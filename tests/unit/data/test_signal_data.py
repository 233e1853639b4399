"""Signals: made ones, WAV files of every kind, and the measures per frequency."""

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from spectrain import InputError
from spectrain.data import SignalDataModule
from spectrain.data.signal import read_wav
from spectrain.metrics import SignalMetrics


def fitted(data: SignalDataModule, values: torch.Tensor) -> dict[str, float]:
    metrics = data.metrics()
    metrics.update(values)
    return {name: float(value) for name, value in metrics.compute().items()}


def test_sines_hold_what_was_asked_for():
    data = SignalDataModule(samples=256, frequencies=[3, 10], amplitudes=[2, 1])
    energy = np.abs(np.fft.rfft(data.signal[:, 0].numpy())) ** 2
    assert set(np.argsort(energy)[-2:]) == {3, 10}
    assert energy[3] / energy[10] == pytest.approx(4, rel=1e-4)
    assert data.signal.abs().max() == 1
    assert data.points[0] == -data.points[-1] == pytest.approx(-1 + 1 / 256)


def test_the_error_of_each_frequency():
    """A fit that has learned the first sine and 90 % of the second."""
    data = SignalDataModule(samples=128, frequencies=[2, 20])
    spectrum = np.fft.rfft(data.signal[:, 0].numpy())
    spectrum[20] *= 0.9
    found = fitted(data, torch.tensor(np.fft.irfft(spectrum), dtype=torch.float32)[:, None])
    assert found["error_f2"] == pytest.approx(0, abs=1e-5)
    assert found["error_f20"] == pytest.approx(0.1, rel=1e-3)
    assert found["snr"] == pytest.approx(10 * np.log10(2 / 0.01), abs=0.05)
    assert fitted(data, torch.zeros(128, 1))["error_f20"] == pytest.approx(1)
    assert fitted(data, torch.zeros(128, 1))["snr"] == pytest.approx(0, abs=1e-5)


def test_octaves_of_other_signals_leave_out_what_is_silent():
    found = SignalDataModule("note", samples=512).metrics()
    assert (8, 15) in found.bands and (256, 256) not in found.bands
    assert isinstance(found, SignalMetrics)
    assert len(SignalDataModule("chirp", samples=512).metrics().bands) >= 4


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav(tmp_path, dtype, channels):
    t = np.arange(64)[:, None]
    wave = 0.5 * np.sin(2 * np.pi * np.arange(1, channels + 1) * t / 64)
    top = {np.uint8: 128, np.int16: 2**15, np.int32: 2**31}.get(dtype, 1)
    stored = (wave * top + (128 if dtype == np.uint8 else 0)).astype(dtype)
    wavfile.write(tmp_path / "x.wav", 22050, stored)
    rate, values = read_wav(str(tmp_path / "x.wav"))
    assert rate == 22050 and values.shape == (64, channels)
    np.testing.assert_allclose(values, wave, atol=2 / 128)
    data = SignalDataModule(str(tmp_path / "x.wav"), samples=32)
    assert (data.out_features, len(data.train_x)) == (channels, 32)
    assert data.signal.abs().max() == 1


def test_wav_of_24_bits(tmp_path):
    """scipy does not write them: the header by hand."""
    samples = np.array([0, 2**22, -(2**23), 2**23 - 1] * 8)
    body = b"".join(int(s).to_bytes(3, "little", signed=True) for s in samples)
    form = np.array([1, 1], "<u2").tobytes() + np.array([8000, 24000], "<u4").tobytes()
    chunk = b"fmt " + (16).to_bytes(4, "little") + form + np.array([3, 24], "<u2").tobytes()
    data = b"WAVE" + chunk + b"data" + len(body).to_bytes(4, "little") + body
    (tmp_path / "x.wav").write_bytes(b"RIFF" + len(data).to_bytes(4, "little") + data)
    _, values = read_wav(str(tmp_path / "x.wav"))
    np.testing.assert_allclose(values[:4, 0], [0, 0.5, -1, 1], atol=1e-6)


def test_arrays_have_a_column_per_channel(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 2)))
    assert SignalDataModule(str(tmp_path / "x.npy"), samples=None).signal.shape == (40, 2)


def test_an_evaluation_writes_the_fit_as_sound(tmp_path):
    data = SignalDataModule(samples=64, frequencies=[2])
    x, metrics, where = data.evaluation()
    metrics.update(data.signal)
    data.export(tmp_path, metrics)
    rate, values = wavfile.read(tmp_path / "fit.wav")
    np.testing.assert_array_equal(values, data.signal[:, 0])
    assert rate == 8000 and len(x) == 64 and where == "on 64 points"
    assert {"predictions.npz", "signal.png"} <= {f.name for f in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"size=9 is the resolution of a picture"):
        data.evaluation(9)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"path": "sine"}, r"data\.path='sine' is not a signal: give one of sines, chirp, note"),
        ({"path": None}, r"data\.path=None is not a signal"),
        ({"path": "gone.wav"}, r"data\.path='gone\.wav' does not exist"),
        ({"samples": 8}, r"data\.samples=8 is too few"),
        ({"samples": 2**21}, r"data\.samples=2097152 is above"),
        ({"frequencies": []}, r"data\.frequencies=\[\]"),
        ({"frequencies": [0]}, r"data\.frequencies=\[0\]"),
        ({"frequencies": [1.5]}, r"data\.frequencies=\[1\.5\]"),
        ({"frequencies": [3, 3]}, r"data\.frequencies=\[3, 3\]"),
        ({"frequencies": [512]}, r"from 1 to 511"),
        ({"amplitudes": [1]}, r"data\.amplitudes=\[1\]"),
        ({"frequencies": [1], "amplitudes": [-1]}, r"data\.amplitudes=\[-1\]"),
    ],
)
def test_refused(settings, said):
    with pytest.raises(InputError, match=said):
        SignalDataModule(**settings)


def test_files_refused(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"RIFF1234")
    wavfile.write(tmp_path / "silent.wav", 8000, np.zeros(64, np.int16))
    wavfile.write(tmp_path / "short.wav", 8000, np.arange(8, dtype=np.int16))
    wavfile.write(tmp_path / "none.wav", 8000, np.zeros(0, np.int16))
    wavfile.write(tmp_path / "nan.wav", 8000, np.full(64, np.nan, np.float32))
    said_of = {"x": "cannot be read as a WAV", "silent": "silent", "short": "8 samples", "none": "0 samples"}
    for name, said in {**said_of, "nan": "NaN"}.items():
        with pytest.raises(InputError, match=said):
            SignalDataModule(str(tmp_path / f"{name}.wav"))


def test_the_mean_of_a_file_hides_no_band(tmp_path):
    t = np.arange(64) / 64
    np.savetxt(tmp_path / "far.csv", 300 + np.sin(2 * np.pi * 5 * t))
    data = SignalDataModule(str(tmp_path / "far.csv"))
    assert data.metrics().bands == [(4, 7)]
    summary = {"snr": 1.0, "best_snr": 1.0}
    assert len(SignalMetrics(data.signal, []).lines(summary)) == 1
