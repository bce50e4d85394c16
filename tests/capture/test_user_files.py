"""Factories and weights as users have them: errors of their code are theirs, files beside theirs can be imported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from netsuke.capture.torch_export import load_factory
from netsuke.core.errors import FileError, UsageError
from netsuke.models import load_weights


def test_a_factory_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    text = "from torch import nn\nclass Beside(nn.Linear):\n    pass\n"
    (tmp_path / "beside_the_factory.py").write_text(text)
    (tmp_path / "made.py").write_text("import beside_the_factory\ndef make(): return beside_the_factory.Beside(3, 2)\n")
    assert type(load_factory(f"{tmp_path}/made.py:make")).__name__ == "Beside"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("def make(): raise ValueError('mine')", r"make\(\) raised ValueError.*mine \(made.py, line 1\)"),
        ("import no_such_package_here", "the file raised ModuleNotFoundError"),
        ("import os\ndef maker(): return 1", "no such factory.*did you mean maker"),
    ],
)
def test_errors_of_the_users_code_are_told_as_such(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "made.py").write_text(text)
    with pytest.raises(UsageError, match=what):
        load_factory(f"{tmp_path}/made.py:make")


def test_a_checkpoint_of_a_training_script_holds_its_state_dict(tmp_path: Path) -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save({"model": source.state_dict(), "epoch": 3}, tmp_path / "c.pth")
    load_weights(target, tmp_path / "c.pth")
    assert torch.equal(source.weight, target.weight)
    torch.save({"epoch": 3, "other": [1]}, tmp_path / "d.pth")
    with pytest.raises(FileError, match=r"no state dict in the file.*epoch, other"):
        load_weights(target, tmp_path / "d.pth")
    torch.save(source, tmp_path / "whole.pth")
    with pytest.raises(FileError, match="without running code") as found:
        load_weights(target, tmp_path / "whole.pth")
    assert "two options" not in str(found.value)
