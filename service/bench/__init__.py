"""Benchmarks as commands: each prints a table of ratios from one run, and saves it as JSON."""
