"""SDCOM: efficient video recognition by static-dynamic composition.

    from sdcom import Budget, Recognizer

    with Recognizer.load() as recognizer:
        print(recognizer.recognize(Path("clip.mp4"), budget=Budget(share=0.5)).predictions)

The names load on first use, so that a decode worker does not import the networks.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdcom import errors as errors
    from sdcom.model import load_model as load_model
    from sdcom.recognition import Budget as Budget
    from sdcom.recognition import Recognition as Recognition
    from sdcom.recognizer import Recognizer as Recognizer

_HOMES = {
    "Budget": "sdcom.recognition",
    "Recognition": "sdcom.recognition",
    "Recognizer": "sdcom.recognizer",
    "load_model": "sdcom.model",
}

__all__ = ["Budget", "Recognition", "Recognizer", "errors", "load_model"]


def __getattr__(name: str) -> object:
    if name == "errors":
        return import_module("sdcom.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sdcom' has no attribute {name!r}")
