"""Where the commands report: results on standard output, what happens meanwhile on standard error."""

from rich.console import Console

progress = Console(stderr=True)
