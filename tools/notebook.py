"""Runs a Jupyter notebook in this process, and shows one as Markdown: ``make notebook``.

Boundary: build time only; reads and writes ``.ipynb`` files (nbformat 4). Cells are plain Python:
no magics, no shell. What IPython would show is kept: printed text, and the last expression of a
cell as text, HTML (``_repr_html_``) or PNG (``_repr_png_``).

Format: https://nbformat.readthedocs.io/en/latest/format_description.html
"""

from __future__ import annotations

import ast
import base64
import contextlib
import html
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

Cell = dict[str, Any]

_KINDS: Final = {"text/html": "_repr_html_", "image/png": "_repr_png_"}


def cells(path: Path) -> list[Cell]:
    """The cells of a notebook."""
    found: list[Cell] = json.loads(path.read_text())["cells"]
    return found


def run(notebook: list[Cell], folder: Path) -> list[list[dict[str, Any]]]:
    """Runs the code cells one after the other in a folder; returns the outputs of each.

    Raises:
        RuntimeError: a cell raised; names it and quotes its code.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        return [_outputs(cell, names) for cell in notebook if cell["cell_type"] == "code"]
    finally:
        os.chdir(before)


def _outputs(cell: Cell, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Runs one cell; its outputs as nbformat has them."""
    code = "".join(cell["source"])
    body = ast.parse(code).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    value = None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    except Exception as error:
        raise RuntimeError(f"cell {cell.get('id', '?')} raised {error!r}:\n{code}") from error
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        data = _shown(value)
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    return outputs


def _shown(value: Any) -> dict[str, Any]:
    """A value as a notebook shows it, by MIME type."""
    data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
    for kind, method in _KINDS.items():
        made = getattr(value, method, lambda: None)()
        if isinstance(made, bytes):
            data[kind] = base64.b64encode(made).decode()
        elif made is not None:
            data[kind] = made.splitlines(keepends=True)
    return data


def as_markdown(path: Path) -> str:
    """A notebook with its stored outputs as a page."""
    return "\n\n".join(_page_part(cell) for cell in cells(path)) + "\n"


def _page_part(cell: Cell) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    shown = [_page_output(output) for output in cell["outputs"]]
    return "\n\n".join([f"```python\n{source}\n```", *shown])


def _page_output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        inner = f"<pre>{html.escape(''.join(output['text']))}</pre>"
    elif "image/png" in output["data"]:
        inner = f'<img alt="plot" src="data:image/png;base64,{output["data"]["image/png"]}">'
    elif "text/html" in output["data"]:
        inner = re.sub(r"\s*\n\s*", "", "".join(output["data"]["text/html"]))
        inner = re.sub(r'<a href="file:[^"]*">(.*?)</a>', r"<code>\1</code>", inner)
    else:
        inner = f"<pre>{html.escape(''.join(output['data']['text/plain']))}</pre>"
    return f'<div class="output">{inner}</div>'


def main(path: Path) -> None:
    """Runs a notebook in an empty folder, and stores its outputs."""
    whole = json.loads(path.read_text())
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        found = run(whole["cells"], Path(folder))
        code = [cell for cell in whole["cells"] if cell["cell_type"] == "code"]
        for number, (cell, outputs) in enumerate(zip(code, found, strict=True), 1):
            text = json.dumps(outputs).replace(folder, "/home/me")
            cell |= {"outputs": json.loads(text), "execution_count": number}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
