"""What `enet-tvm tune` says to what cannot be."""

from __future__ import annotations

import pytest

from enet_tvm.cli.main import main


@pytest.mark.quick_cases(4)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--trials", "10", "--minutes", "5"], "give --trials or --minutes, not both"),
        (["--key", "rpi4"], "give --tracker HOST:PORT"),
        (["--target", "rpi4"], "tune on the device: give --tracker HOST:PORT"),
        (["--target", "no-such-board"], "there is no target 'no-such-board'"),
        (["--size", "100x100"], "must be divisible by 8"),
        (["--weights", "missing.safetensors"], "there is no file missing.safetensors"),
        (["--tracker", "127.0.0.1:1", "--target", "rpi4"], "no tracker answers at 127.0.0.1:1"),
    ],
)
def test_bad_input_is_a_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exited:
        main(["tune", *arguments])
    assert exited.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error
    assert not (tmp_path / "tuning_logs").exists()
