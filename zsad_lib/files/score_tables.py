"""Score tables of one's own video, a block of rows at a time: as CSV, or as Parquet, which is read sooner.

A day at 25 frames per second is a table of two million rows: no column of it has to be in memory for it to be written.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from zsad_lib.errors import ZsadError
from zsad_lib.files.paths import atomic

FORMATS = ("csv", "parquet")  # endings of score tables
PARQUET = "PAR1"  # how a Parquet file begins


def write_table(path: Path, blocks: Iterable[pd.DataFrame]) -> None:
    """Writes rows that come in blocks of the same columns, whole or not at all.

    Args:
        path: ``.parquet``, which keeps the blocks' types and ``attrs``, or CSV.
        blocks: at least one.
    """
    if path.suffix.lower() == ".parquet":
        return _write_parquet(path, blocks)
    with atomic(path) as handle:
        for number, block in enumerate(blocks):
            block.to_csv(handle, index=False, header=number == 0, lineterminator="\n")


def _write_parquet(path: Path, blocks: Iterable[pd.DataFrame]) -> None:
    import pyarrow
    import pyarrow.parquet

    writer = None
    with atomic(path, mode=None) as temporary:
        try:
            for block in blocks:
                table = pyarrow.Table.from_pandas(block, preserve_index=False)
                writer = writer or pyarrow.parquet.ParquetWriter(temporary, table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()


def parquet_names(path: Path) -> list[str]:
    """Names of the columns of a Parquet file; ZsadError where it is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_schema(path).names
    except FileNotFoundError:
        raise ZsadError(f"{path}: no such file; give one with a number per frame") from None
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ZsadError(f"{path}: not readable ({reason}); give a Parquet file") from None


def parquet_rows(path: Path) -> int:
    """Number of rows of a Parquet file, which no more than its end is read for."""
    import pyarrow.parquet

    return pyarrow.parquet.read_metadata(path).num_rows


def read_parquet_column(path: Path, name: str) -> np.ndarray:
    """A column of a Parquet file [n], float64 or bool; ZsadError where it holds what is no number, as file and row."""
    import pyarrow
    import pyarrow.parquet

    try:
        column = pyarrow.parquet.read_table(path, columns=[name]).column(0)
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ZsadError(f"{path}: not readable ({reason}); write it again") from None
    kind, types = column.type, pyarrow.types
    if not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise ZsadError(f"{path}: column {name!r} holds {kind}; give numbers, one per frame")
    if column.null_count:
        row = column.is_null().to_numpy().argmax() + 1
        raise ZsadError(f"{path}: row {row}: expected a number in column {name!r}, got none")
    return column.to_numpy() if types.is_boolean(kind) else column.to_numpy().astype(np.float64)
