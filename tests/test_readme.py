"""What the README shows runs: every fenced bash and python block, in an empty folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from tests import programs

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)


def test_readme_has_examples() -> None:
    assert {kind for kind, _ in BLOCKS} == {"bash", "python"}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "text"), BLOCKS, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(BLOCKS)])
def test_readme_block_runs(kind: str, text: str, tmp_path: Path) -> None:
    command = ["bash", "-euo", "pipefail", "-c", text] if kind == "bash" else [sys.executable, "-c", text]
    programs.run(command, tmp_path, PATH=str(Path(sys.executable).parent))


def test_links_of_the_documents_point_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")]
    links = [
        (document, target)
        for document in documents
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    ]
    broken = [f"{d.name}: {t}" for d, t in links if "://" not in t and not (d.parent / t).exists()]
    assert not broken
