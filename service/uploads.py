"""Uploads on their way to disk: counted as they come, held once, in an unnamed file."""

import errno
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import BinaryIO, cast

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from sdcom.errors import OverloadedError, UndecodableVideoError, UnknownNameError, VideoTooLargeError
from service.errors import ClientGoneError, MalformedUploadError, UnsupportedMediaTypeError
from service.parameters import RecognizeParameters

MULTIPART_FIELD = "video"
MULTIPART_OVERHEAD_BYTES = 64 * 1024  # boundaries and part headers around the one file
_MOST_FIELDS = len(RecognizeParameters.model_fields)  # so many are told that they belong to the URL
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ROOM_AFTER_S = 10.0  # uploads leave with their requests, which take seconds


@asynccontextmanager
async def spooled(chunks: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[BinaryIO]:
    """Write `chunks` to an unnamed file with a real descriptor, closed and gone at the end.

    Raises:
        VideoTooLargeError: as soon as the count passes `limit_bytes`.
        UndecodableVideoError: nothing came.
        OverloadedError: there is no room on the disk.
    """
    with _full_disk_refused(), tempfile.TemporaryFile() as file:
        async for chunk in _limited(chunks, limit_bytes):
            file.write(chunk)  # into the page cache: shorter than the hop to a thread
        file.flush()
        _refuse_empty(file.tell())
        file.seek(0)
        yield cast(BinaryIO, file)


@asynccontextmanager
async def received(request: Request, limit_bytes: int) -> AsyncIterator[BinaryIO]:
    """Receive the one video of an HTTP request, as a raw body or in the multipart field `video`.

    Raises:
        VideoTooLargeError: by its Content-Length before any of it is read, else when the count passes.
        UnsupportedMediaTypeError: neither multipart nor a video type.
        MalformedUploadError: the form is broken, or has not exactly one file.
        UnknownNameError: the form has another field than `video`.
        UndecodableVideoError: nothing came.
        ClientGoneError: the client went away half-way.
        OverloadedError: there is no room on the disk.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_multipart = media_type == "multipart/form-data"
    if not is_multipart and not media_type.startswith("video/") and media_type != "application/octet-stream":
        raise UnsupportedMediaTypeError(
            f"content type {media_type or '(none)'!r} is not accepted; send the file as a raw body of type "
            f"video/* or application/octet-stream, or in the field {MULTIPART_FIELD!r} of multipart/form-data"
        )
    overhead_bytes = MULTIPART_OVERHEAD_BYTES if is_multipart else 0
    _refuse_declared(request.headers, limit_bytes + overhead_bytes, limit_bytes)
    if is_multipart:
        with _full_disk_refused():
            async with _multipart(request, limit_bytes) as file:
                yield file
    else:
        async with spooled(_body(request), limit_bytes) as file:
            yield file


async def client_gone(request: Request) -> None:
    """Return when the client has gone. Its body must have been received."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextmanager
def _full_disk_refused() -> Iterator[None]:
    """Turn a full disk into a refusal, wherever it is met: at a write, a flush, or the file's own closing."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OverloadedError(
            "the room for uploads is full (the temporary directory, TMPDIR); try again later", _ROOM_AFTER_S
        ) from error


def _refuse_declared(headers: Headers, body_limit_bytes: int, limit_bytes: int) -> None:
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > body_limit_bytes:
        raise VideoTooLargeError(int(declared), limit_bytes)


def _refuse_empty(size_bytes: int) -> None:
    if size_bytes == 0:
        raise UndecodableVideoError("the upload is empty; send the bytes of a video file")


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise ClientGoneError("the client went away during the upload") from error


async def _limited(chunks: AsyncIterator[bytes], limit_bytes: int) -> AsyncGenerator[bytes, None]:
    size_bytes = 0
    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise VideoTooLargeError(size_bytes, limit_bytes)
        yield chunk


@asynccontextmanager
async def _multipart(request: Request, limit_bytes: int) -> AsyncIterator[BinaryIO]:
    chunks = _limited(_body(request), limit_bytes + MULTIPART_OVERHEAD_BYTES)
    parser = MultiPartParser(
        request.headers, chunks, max_files=1, max_fields=_MOST_FIELDS, max_part_size=1024
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise MalformedUploadError(
            f"{error.message} Send one file, in the field {MULTIPART_FIELD!r}."
        ) from error
    try:
        upload = _only_video(form)
        size_bytes = upload.size or 0
        _refuse_empty(size_bytes)
        if size_bytes > limit_bytes:
            raise VideoTooLargeError(size_bytes, limit_bytes)
        yield upload.file
    finally:
        await form.close()


def _only_video(form: FormData) -> UploadFile:
    items = form.multi_items()
    for name, _ in items:
        if name in RecognizeParameters.model_fields:
            raise MalformedUploadError(
                f"the form has the field {name!r}; parameters belong to the URL, as in /recognize?{name}=..."
            )
        if name != MULTIPART_FIELD:
            raise UnknownNameError("form field", name, [MULTIPART_FIELD])
    if len(items) != 1:
        raise MalformedUploadError(
            f"the form must have the field {MULTIPART_FIELD!r} once; it has it {len(items)} times"
        )
    upload = items[0][1]
    if not isinstance(upload, UploadFile):
        raise MalformedUploadError(f"the field {MULTIPART_FIELD!r} is text; send a file, with a filename")
    return upload
