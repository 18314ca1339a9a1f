"""Engines against the reference: plain torch."""
