"""The training package's commands, one a file."""

import typer

from training.cli import calibrate, data, evaluate, results, train

app = typer.Typer(name="sdcom", no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(calibrate.calibrate)
app.command()(results.results)
app.add_typer(data.app)
