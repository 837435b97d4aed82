"""Reads small files of users: checked bytes, and tables within limits.

Boundary: files in, bytes or tables out; independent of what they mean.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import IO, Any, Final

import pandas as pd

from timetrial.framework.checksums import check_beside, unsealed
from timetrial.framework.errors import UserError

MAX_BYTES: Final = 8 << 20
"""Maximum size of a table."""

MAX_COLUMNS: Final = 500
MAX_ROWS: Final = 100_000


def read_checked(path: Path, what: str, limit: int = MAX_BYTES, hint: str = "") -> bytes:
    """The content of a file without its checksum, which is compared.

    Args:
        path: the file.
        what: name of the file in errors.
        limit: maximum size in bytes.
        hint: what was expected instead of a file that cannot be read.

    Raises:
        UserError: the file is missing, no regular file, too large, or has another checksum.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{what}: expected a file, got something else")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UserError(f"{what}: cannot be read ({error.strerror}){hint}") from error
    except ValueError as error:  # a NUL character in its name
        raise UserError(f"{what}: cannot be read ({error})") from error
    if len(data) > limit:
        raise UserError(f"{what}: expected at most {limit:,} bytes, got more")
    check_beside(path, data)
    return unsealed(data, what)


def read_table(path: Path | IO[str], what: str, hint: str = "", **options: Any) -> pd.DataFrame:
    """A table from a CSV file; all cells are texts with ``dtype=str``.

    Args:
        path: the file, or an open text.
        what: name of the file in errors.
        hint: as for ``read_checked``.
        options: further options of ``pandas.read_csv``.

    Returns:
        The table; line 2 of the file has index 0.

    Raises:
        UserError: as ``read_checked``; no table in UTF-8; more than ``MAX_COLUMNS`` columns or
            ``MAX_ROWS`` rows; a row with more cells than the header.
    """
    is_file = isinstance(path, Path)
    data = read_checked(path, what, hint=hint) if isinstance(path, Path) else path.read().encode()
    try:
        text = data.decode("utf-8-sig")
        _check_header(text, what, options.get("comment"))
        table: pd.DataFrame = pd.read_csv(
            io.StringIO(text),
            keep_default_na="dtype" not in options,
            skipinitialspace=True,
            low_memory=False,
            **options,
        )
    except UserError:
        raise
    except (ValueError, OverflowError, csv.Error) as error:  # what pandas raises for other content
        raise UserError(f"{what}: no table: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise UserError(f"{what}: expected rows with the cells of the header, got more cells")
    if len(table) > MAX_ROWS:
        raise UserError(f"{what}: expected at most {MAX_ROWS:,} rows, got {len(table):,}")
    if is_file and data.startswith(b"\n"):  # the line of the checksum
        table.index += 1
    return table


def _check_header(text: str, what: str, comment: str | None) -> None:
    """Refuses a header that would take very long."""
    lines = (line for line in io.StringIO(text) if line.strip())
    head = next((line for line in lines if not (comment and line.startswith(comment))), "")
    columns = next(csv.reader([head]), [])
    if len(columns) > MAX_COLUMNS:
        raise UserError(f"{what}: expected at most {MAX_COLUMNS} columns, got {len(columns):,}")
