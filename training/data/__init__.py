"""Data: lists of labelled clips in, frames of chosen clips out."""

from training.data.clips import Clip, DataError, Split
from training.data.holding import hold_out_groups
from training.data.splits import read_split

__all__ = ["Clip", "DataError", "Split", "hold_out_groups", "read_split"]
