"""Evaluation: how often a model is right and what that costs, against controls, as records and as a page."""
