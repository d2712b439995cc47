"""The keys that a policy keeps, as a CSV that img2dataset, webdataset and Hugging Face `datasets` can be told to follow.

    from tasks._keep_lists import KeepList

    kept = KeepList("data/keep_list/v1/keys/one_per_cluster.csv")
    datasets.load_dataset("parquet", data_files=...).filter(kept.has, input_columns="key")
    webdataset.WebDataset(...).select(lambda sample: kept.has(sample["__key__"]))
"""

import io
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from tasks import _tables
from tasks._settings import UserError


def write(target: Path, keys: pa.ChunkedArray) -> None:
    """Write the keys under the heading `key`, quoted where a key asks for it: the form that `releases.<name>.kept` takes too."""
    sink = io.BytesIO()
    csv.write_csv(pa.table({"key": keys}), sink, csv.WriteOptions(quoting_style="needed", quoting_header="none"))
    _tables.put_bytes(sink.getvalue(), target)


class KeepList:
    """The keys of a keep list, held in memory: one set, for as many rows as there are."""

    def __init__(self, file: str | Path) -> None:
        """Raises UserError where there is no such file, or it has no column `key`."""
        try:
            options = csv.ConvertOptions(include_columns=["key"], column_types={"key": pa.string()}, strings_can_be_null=False)
            read = csv.read_csv(file, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=options)
        except FileNotFoundError:
            raise UserError(f"keep list {file} does not exist; the stage `keep_list` writes them to data/keep_list/<release>/keys/") from None
        except (pa.ArrowException, KeyError, OSError):
            raise UserError(f"keep list {file} is no CSV with a column key; the stage `keep_list` writes such") from None
        self.keys = frozenset(read["key"].to_pylist())

    def __len__(self) -> int:
        return len(self.keys)

    def has(self, key: str) -> bool:
        """Whether the row with this key is kept."""
        return key in self.keys
