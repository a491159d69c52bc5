"""What can be wrong with a picture or an option. All of it is the caller's to fix.

PreprocessError (a ValueError)
  InvalidImage            the bytes or the array are not a picture this package takes
    UnsupportedFormat     a known format that is not accepted, or not a picture at all
    TruncatedImage        the file ends before the picture does
    ImageTooLarge         more bytes or pixels than the limits allow
  InvalidOption           an option that does not exist, or a value outside its range
"""

from __future__ import annotations


class PreprocessError(ValueError):
    """Base of everything this package raises on purpose."""


class InvalidImage(PreprocessError):
    """The bytes or the array are not a picture this package takes."""


class UnsupportedFormat(InvalidImage):
    """A known format that is not accepted, or bytes that are not a picture at all."""


class TruncatedImage(InvalidImage):
    """The file ends before the picture does."""


class ImageTooLarge(InvalidImage):
    """More bytes or pixels than the limits allow."""


class InvalidOption(PreprocessError):
    """An option that does not exist, or a value outside its range."""
