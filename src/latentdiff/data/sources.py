"""Which reader a recipe's data has."""

from __future__ import annotations

from pathlib import Path

from latentdiff.data.annotations import annotate
from latentdiff.data.folder import read_folder
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records
from latentdiff.data.shards import is_shards, read_shards
from latentdiff.data.tables import is_table, read_table
from latentdiff.errors import ConfigError


def read_records(options: DataOptions, output_dir: str | Path | None = None) -> Records:
    """The records of what the recipe names, whatever it is; no image is opened.

    Args:
        options: Of the data.
        output_dir: Where a run writes, whose images are no data.

    Raises:
        InputError: If it isn't there, holds no images, or something is known of some of them only.
        ConfigError: If an option does not go with this source, or an extra of the package is needed and missing.
    """
    source = Path(options.train_data_dir or "")
    if options.dataset_name is None and options.dataset_config_name is not None:
        raise ConfigError("dataset_config_name is given without dataset_name; give both, or neither")
    if options.dataset_name is None and not is_table(source) and options.given_split():
        raise ConfigError(f"dataset_split is given, but {source} is no data set of Hugging Face; leave it out")
    if options.dataset_name is None and not is_shards(source) and not is_table(source):
        return annotate(read_folder(options, output_dir), options)
    for name in ("annotations", "label_maps"):
        if getattr(options, name) is not None:
            raise ConfigError(f"{name} is given, but goes with a folder of images alone; use a column of the data")
    return read_shards(options) if options.dataset_name is None and is_shards(source) else read_table(options)
