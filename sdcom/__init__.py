"""SDCOM: efficient video recognition by static-dynamic composition."""
