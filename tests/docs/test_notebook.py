"""The notebook runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from repository import REPOSITORY


@pytest.mark.processes
def test_the_notebook_labels_shows_and_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(REPOSITORY / "docs/notebook.ipynb", as_version=4)
    assert len(notebook.cells) <= 10
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    kinds = [set(output.get("data", {})) for cell in code for output in cell.outputs]
    assert any("image/png" in kind for kind in kinds), "the overlay is shown"
    assert (tmp_path / "label.png").exists()
    miou = float(code[-1].outputs[-1]["data"]["text/plain"])
    assert 0.5 < miou <= 1, "of three scenes, by the demo's models"
