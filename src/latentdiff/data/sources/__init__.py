"""Named sources: data sets whose folders have a layout of their own; the registry `SOURCES` has their names.

A source is a function of the options of the data, and of its own settings as keywords, that returns `Records`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from latentdiff.config import check
from latentdiff.data.options import DataOptions
from latentdiff.data.records import Records, check_columns
from latentdiff.registry import SOURCES, load_plugins, nearest

Source = Callable[..., Records]


def read_source(options: DataOptions) -> Records:
    """The records of a named source.

    Raises:
        ConfigError: If there is no such source, in the package or in what is installed beside it, or it has no such
            settings.
        InputError: If the data isn't there, or hasn't the source's layout.
    """
    name = str(options.source)
    if name not in SOURCES:
        load_plugins()
    check(name in SOURCES, f"data.source is {name!r}; {nearest(name, SOURCES.names())}")
    source: Source = SOURCES.get(name)
    known = [*inspect.signature(source).parameters][1:]
    for setting in options.source_options:
        check(
            setting in known,
            f"data.source_options has {setting!r}, which the source {name!r} doesn't know; {nearest(setting, known)}",
        )
    return check_columns(source(options, **options.source_options))
