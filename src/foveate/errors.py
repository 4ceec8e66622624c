"""Errors: every mistake a user can make is one of these, and says what to do about it."""


class FoveateError(Exception):
    """Error of foveate: anything it refuses, said in one line: the rule, the values, the remedy.

    Example:
        >>> raise FoveateError("patch must be positive, got 0: set model.patch to e.g. 50 50")
        Traceback (most recent call last):
        ...
        foveate.errors.FoveateError: patch must be positive, got 0: set model.patch to e.g. 50 50
    """


class ArgumentError(FoveateError, ValueError):
    """Value error of an argument: a function of foveate was called with a value that it does not take."""


class ArgumentTypeError(FoveateError, TypeError):
    """Type error of an argument: a function of foveate was called with a thing of another kind than it takes."""


class ConfigError(FoveateError, ValueError):
    """Configuration error: a setting is unknown, of the wrong type or contradicts another one."""


class ImageError(FoveateError):
    """Image error: an image is missing, unreadable or not of the kind a model wants."""


class PixelError(ImageError, ValueError, TypeError):
    """Array that is no image: its values are of a type, or its axes of a number, that no image has."""


class Absent(ImageError):  # noqa: N818  a row taken out, not a fault
    """Absence: an image that a run had and its manifest names no more; it is left out, and nobody need be told."""


class Unsupported(ImageError):  # noqa: N818  a kind of image, not a fault
    """Unsupported kind of image: whole, as far as was looked, but of a kind that its reader leaves to others.

    Attributes:
        vendor: whether it is a slide that OpenSlide alone reads right.
    """

    def __init__(self, message: str, vendor: bool = False) -> None:
        super().__init__(message)
        self.vendor = vendor


class Changed(ImageError):  # noqa: N818  a state of a file
    """Change of a file since its image was opened, or looked at: what is read of it now would be of another image."""


class TooLarge(ImageError):  # noqa: N818  a size, not a fault
    """Too large an image to be decoded whole, of a format that is; the message says whether it can be converted."""


class DataError(FoveateError, ValueError):
    """Data error: a manifest, folder, archive, or a list of images and labels does not hold what it should."""


class RunError(FoveateError):
    """Run error: a run or model folder is not one, is in the way, or does not match."""


class WriteError(FoveateError):
    """Writing error: a file cannot be written, as its disk is full or takes no more of it; no image is at fault."""


class MissingExtra(FoveateError):  # noqa: N818  it names a state of the installation, not a fault
    """Missing extra: an optional dependency is not installed; the message is the `pip install` line."""


class Interrupted(FoveateError):  # noqa: N818  a signal, not a fault
    """Interruption: a run was stopped by a signal after it saved its state.

    Attributes:
        signal: number of the signal (2 for Ctrl-C, 15 for SIGTERM).
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


UNREADABLE = (ImageError, DataError, MissingExtra, OSError, MemoryError, OverflowError)
"""What may be raised on account of one image: it has failed, and the others go on."""

LONGEST_REASON = 240
"""Characters of an error from elsewhere: some libraries print tables."""


def one_line(error: BaseException) -> str:
    r"""Reason in one line: an error from elsewhere, after its kind, as it stands within a message of ours.

    Example:
        >>> one_line(ValueError("cut\nshort. Try another."))
        'ValueError cut short. Try another'
    """
    text = " ".join(f"{type(error).__name__} {error}".split()).rstrip(".")
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
