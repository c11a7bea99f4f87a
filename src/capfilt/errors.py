"""Every mistake a user can make, each with its exit code and one clear line: what, why, what to do.

| exit | raised as | meaning |
|---|---|---|
| 0 | | done |
| 1 | `CheckFailed` | a check ran and failed (golden numbers, counts that must add up) |
| 2 | `ConfigError` | a setting, flag or recipe that does not exist or cannot be |
| 3 | `DataError` | the input: missing, empty, or nothing usable in it |
| 4 | `WeightsError` | weights or a checkpoint that do not fit |
| 5 | `StorageError` | the disk: full, or not writable |
| 6 | `BusyError` | another run is writing to this folder |
| 7 | `ChangedError` | settings, models or data differ from those of the run that would go on |
| 3 | `FailRateError` | `clean`: more rows failed than allowed |
| 4 | `NothingToRead` | `clean` and its kin: no collection there, or no row in it that can be used |
| 130, 143 | | interrupted (Ctrl-C), terminated (SIGTERM): state saved, run again to go on |
"""


class CapfiltError(Exception):
    """Root of the tree. The command line prints `str(error)` on one line and exits with `exit_code`."""

    exit_code = 1


class CheckFailed(CapfiltError):
    """A check that was asked for did not pass."""


class ConfigError(CapfiltError):
    """A setting that does not exist, has the wrong type, or contradicts another."""

    exit_code = 2


class DataError(CapfiltError):
    """Input that is missing, empty or unusable as a whole. Single bad rows are counted, not raised."""

    exit_code = 3


class BatchError(DataError):
    """A batch that an objective cannot work with."""


class ImageError(DataError):
    """One image that cannot be used; `reason` is the short code that its row carries.

    Args:
        reason: a code such as `truncated`, `not_an_image`, `too_large`.
        message: what is wrong with this image, with the values.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):  # survives the way back from a worker process
        return type(self), (self.reason, str(self))


class WeightsError(CapfiltError):
    """Weights whose keys, shapes or config do not fit the model that should take them."""

    exit_code = 4


class StorageError(CapfiltError):
    """The disk refused: full, read-only, or no permission."""

    exit_code = 5


class FailRateError(CapfiltError):
    """More rows failed than `--max-fail-rate` allows."""

    exit_code = 3


class NothingToRead(DataError):
    """A collection to clean that is not there, or holds no row that can be used."""

    exit_code = 4


class ChangedError(ConfigError):
    """A run that would go on with other settings, models or data than it was begun with."""

    exit_code = 7


class BusyError(CapfiltError):
    """Another process holds the folder."""

    exit_code = 6
