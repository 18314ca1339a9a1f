"""`sdcom results`."""

from pathlib import Path
from typing import Annotated

import typer

from training.cli.console import progress
from training.evaluation.plots import draw_against_gflops, draw_against_ms
from training.evaluation.record import read_records
from training.evaluation.report import placed, plot_name, report
from training.evaluation.summary import grouped
from training.evaluation.tables import Score, card_table


def results(
    runs: Annotated[list[Path], typer.Argument(help="Records that `sdcom evaluate --output` wrote.")],
    *,
    output: Annotated[Path, typer.Option(help="Page of Markdown; plots go into plots/ beside it.")],
    score: Annotated[Score, typer.Option(help="What comparisons are about.")] = Score.TOP1,
    card: Annotated[
        Path | None,
        typer.Option(
            help="Model card whose table of accuracy to make anew too; its model is the first run's."
        ),
    ] = None,
) -> None:
    """Sum evaluations up in one page: means over splits and seeds, controls at equal FLOPs, plots.

    Records of the same name on the same data are runs of one kind. What is written by hand in the page stays
    as it is: only the marked part is replaced.
    """
    records = read_records(list(dict.fromkeys(runs)))
    page = output.read_text(encoding="utf-8") if output.is_file() else "# Results\n"
    scored = "" if score is Score.TOP1 else f" --score {score}"
    named = " ".join(path.name for path in dict.fromkeys(runs))
    command = f"sdcom results {named} --output {output.name}{scored}"
    page = placed(page, report(records, score, command))
    for kind in grouped(records).values():
        draw_against_gflops(output.parent / "plots" / plot_name(kind[0], "gflops"), kind, score)
        draw_against_ms(output.parent / "plots" / plot_name(kind[0], "ms"), kind, score)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    if card is not None:
        (own,) = read_records(runs[:1])
        kind = next(kind for kind in grouped(records).values() if own in kind)
        card.write_text(placed(card.read_text(encoding="utf-8"), card_table(own, kind)), encoding="utf-8")
    progress.print(f"{output} is made; records summed up: {len(records)}")
