"""The one table from errors to statuses."""

import asyncio
import inspect

import grpc
import pytest

import sdcom.errors
import service.errors
from sdcom.errors import (
    DecoderKilledError,
    ModelDirectoryError,
    OverloadedError,
    SdcomError,
    SettingsError,
    UnknownNameError,
    VideoRejectedError,
)
from service.errors import (
    CLIENT_CLOSED_REQUEST,
    PROBLEMS,
    UNEXPECTED,
    decode_failure_reason,
    problem_detail,
    problem_kind,
    retry_after_s,
)
from tests.conftest import REPOSITORY

NEVER_A_REQUESTS_FAULT = {SdcomError, VideoRejectedError, ModelDirectoryError, SettingsError}
ERRORS = [
    cls
    for module in (sdcom.errors, service.errors)
    for _, cls in inspect.getmembers(module, inspect.isclass)
    if issubclass(cls, SdcomError) and cls not in NEVER_A_REQUESTS_FAULT
]


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_every_error_of_a_request_has_a_row(cls: type[SdcomError]) -> None:
    assert problem_kind(cls.__new__(cls)) is not UNEXPECTED


def test_no_row_hides_a_narrower_one() -> None:
    rows = list(PROBLEMS)
    for position, cls in enumerate(rows):
        for later in rows[position + 1 :]:
            assert not issubclass(later, cls), f"{later.__name__} can never be reached"


def test_names_are_one_to_one_with_what_they_mean() -> None:
    kinds = {kind.name: kind for kind in [*PROBLEMS.values(), UNEXPECTED]}
    assert all(kinds[kind.name] == kind for kind in PROBLEMS.values())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (408, grpc.StatusCode.DEADLINE_EXCEEDED),
        (499, grpc.StatusCode.CANCELLED),
        (500, grpc.StatusCode.INTERNAL),
        (503, grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_a_status_and_its_code_mean_the_same(status: int, code: grpc.StatusCode) -> None:
    kinds = [kind for kind in [*PROBLEMS.values(), UNEXPECTED] if kind.status == status]
    assert kinds
    assert all(kind.code is code for kind in kinds)


def test_every_row_is_documented() -> None:
    page = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    for kind in {*PROBLEMS.values(), UNEXPECTED}:
        if kind.status != CLIENT_CLOSED_REQUEST:
            assert f"| `{kind.name}` | {kind.status} | {kind.code.name} |" in page


def test_subclasses_share_their_parents_row() -> None:
    assert problem_kind(UnknownNameError("parameter", "x", ["y"])).status == 400


def test_an_unforeseen_error_keeps_its_words_to_itself() -> None:
    assert problem_kind(KeyError("secret")) is UNEXPECTED
    assert "secret" not in problem_detail(KeyError("secret"))


@pytest.mark.parametrize(("seconds", "header"), [(0.0, 1), (0.2, 1), (2.1, 3)])
def test_trying_again_is_whole_seconds(seconds: float, header: int) -> None:
    assert retry_after_s(OverloadedError("full", seconds)) == header


def test_only_an_overload_names_a_time() -> None:
    assert retry_after_s(ValueError()) is None


def test_how_calls_end_is_one_of_few() -> None:
    kinds = [*PROBLEMS.values(), UNEXPECTED]
    assert {kind.outcome for kind in kinds} == {"cancelled", "expired", "failed", "rejected"}
    assert problem_kind(asyncio.CancelledError()).outcome == "cancelled"


def test_a_killed_decoder_is_counted_by_its_reason() -> None:
    assert decode_failure_reason(DecoderKilledError("memory", "ate 2 GiB")) == "memory"
    assert decode_failure_reason(OverloadedError("full", 1)) is None
