"""The library's own errors: every message says what is wrong, where, and what to do about it."""


class TimeNetError(Exception):
    """Anything that a caller can mend; the command line prints it in one line and exits with 2."""


class DataError(TimeNetError):
    """A folder, image or mask that cannot be used as it is."""


class WeightsError(TimeNetError):
    """A checkpoint that is missing, altered, or made for something else."""


class InputError(TimeNetError):
    """An argument out of its range, or of the wrong shape or name."""


class OutputError(TimeNetError):
    """A file that cannot be written: a full disk, a folder that is read-only."""
