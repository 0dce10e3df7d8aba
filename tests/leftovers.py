"""What killed processes leave beside their results."""

from latentdiff.io.staging import make_entry

NOBODY = 2**22 + 1  # is above all numbers of processes


def leave_behind(path, kind):
    """The folder in which a process that has ended was writing `path`, or had put it aside."""
    entry = make_entry(path, kind)
    parts = entry.name.split("-")
    return entry.rename(entry.with_name("-".join([*parts[:2], str(NOBODY), *parts[3:]])))
