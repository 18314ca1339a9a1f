"""Two processes say, step by step, what one says of the same global batch."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import REPOSITORY
from tests.training import parallel
from tests.training.conftest import batches_of, patterned_store
from training.distributed import (
    barrier,
    gather_lists,
    is_main,
    mean_over_ranks,
    process_group,
    rank,
    sum_gradients,
    world_size,
)

NUM_PROCESSES = 2
NUM_STEPS = {"supernet": 1, "meta": 2, "remembered": 2, "gate": 4}
STAGES = tuple(NUM_STEPS)
Said = dict[str, Any]


def _start(number: int, port: int, folder: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(NUM_PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "error", "-m", "tests.training.parallel", str(folder)]
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Said]]:
    """What each of the processes said."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [_start(number, port, folder) for number in range(NUM_PROCESSES)]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
        yield [torch.load(folder / f"{number}.pt") for number in range(NUM_PROCESSES)]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def alone() -> Said:
    return parallel.everything()


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_have_the_losses_of_one(alone: Said, together: list[Said], stage: str) -> None:
    expected = alone[stage]["steps"]
    assert len(expected) == NUM_STEPS[stage]
    for said in together:
        for ours, theirs in zip(expected, said[stage]["steps"], strict=True):
            assert theirs == pytest.approx(ours, rel=2e-3)


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_end_with_the_same_weights_and_statistics(together: list[Said], stage: str) -> None:
    first, second = (said[stage]["state"] for said in together)
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("stage", STAGES)
def test_two_processes_end_with_the_statistics_of_one(alone: Said, together: list[Said], stage: str) -> None:
    theirs = together[0][stage]["state"]
    for name, value in alone[stage]["state"].items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-2, atol=1e-3, msg=name)


def test_two_processes_normalise_by_the_global_batch(alone: Said, together: list[Said]) -> None:
    for name in ("output", "first", "second"):
        joined = torch.cat([said["norms"][name] for said in together])
        torch.testing.assert_close(joined, alone["norms"][name])
    for said in together:
        for name in ("mean", "variance"):
            torch.testing.assert_close(said["norms"][name], alone["norms"][name])


def test_sums_means_and_lists_are_over_all_processes(together: list[Said]) -> None:
    for said in together:
        assert said["mean"].tolist() == [1.5, 3.0]
        assert [mean.tolist() for mean in said["means"]] == [[[0.5, 0.5], [0.5, 0.5]], 3.0]
        assert said["gathered"] == [1]


def test_all_processes_stop_and_name_the_batchs_files_where_one_diverged(together: list[Said]) -> None:
    batches = batches_of(patterned_store(4), parallel.CONFIG.clip, stage=2)
    files = ", ".join(f"{index}.mp4" for index in batches.chosen(0)[0])
    for said in together:
        assert said["diverged"].startswith("policy, epoch 1, step 1: loss is nan")
        assert f"The batch's files: {files}. If" in said["diverged"]


def test_alone_nothing_is_joined() -> None:
    with process_group(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        assert (rank(), world_size(), is_main()) == (0, 1, True)
        barrier()
        sum_gradients([])
    assert mean_over_ranks(torch.tensor(2.0)) == 2
    assert gather_lists([3, 1]) == [3, 1]
