from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Detail(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DETAIL_UNSPECIFIED: _ClassVar[Detail]
    DETAIL_FRAMES: _ClassVar[Detail]
    DETAIL_SUMMARY: _ClassVar[Detail]
DETAIL_UNSPECIFIED: Detail
DETAIL_FRAMES: Detail
DETAIL_SUMMARY: Detail

class RecognizeRequest(_message.Message):
    __slots__ = ("options", "chunk")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    options: RecognizeOptions
    chunk: bytes
    def __init__(self, options: _Optional[_Union[RecognizeOptions, _Mapping]] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class RecognizeOptions(_message.Message):
    __slots__ = ("top_k", "budget", "max_gflops", "max_ms", "detail", "min_confidence", "min_budget")
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    MAX_GFLOPS_FIELD_NUMBER: _ClassVar[int]
    MAX_MS_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    MIN_CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_BUDGET_FIELD_NUMBER: _ClassVar[int]
    top_k: int
    budget: float
    max_gflops: float
    max_ms: float
    detail: Detail
    min_confidence: float
    min_budget: float
    def __init__(self, top_k: _Optional[int] = ..., budget: _Optional[float] = ..., max_gflops: _Optional[float] = ..., max_ms: _Optional[float] = ..., detail: _Optional[_Union[Detail, str]] = ..., min_confidence: _Optional[float] = ..., min_budget: _Optional[float] = ...) -> None: ...

class RecognizeResponse(_message.Message):
    __slots__ = ("request_id", "model", "predictions", "frames", "compute", "timing_ms", "video")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PREDICTIONS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    TIMING_MS_FIELD_NUMBER: _ClassVar[int]
    VIDEO_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: str
    predictions: _containers.RepeatedCompositeFieldContainer[Prediction]
    frames: _containers.RepeatedCompositeFieldContainer[Frame]
    compute: Compute
    timing_ms: Timing
    video: Video
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[str] = ..., predictions: _Optional[_Iterable[_Union[Prediction, _Mapping]]] = ..., frames: _Optional[_Iterable[_Union[Frame, _Mapping]]] = ..., compute: _Optional[_Union[Compute, _Mapping]] = ..., timing_ms: _Optional[_Union[Timing, _Mapping]] = ..., video: _Optional[_Union[Video, _Mapping]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("label", "index", "score")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    label: str
    index: int
    score: float
    def __init__(self, label: _Optional[str] = ..., index: _Optional[int] = ..., score: _Optional[float] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("time_s", "width", "label", "score")
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    time_s: float
    width: float
    label: str
    score: float
    def __init__(self, time_s: _Optional[float] = ..., width: _Optional[float] = ..., label: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class Compute(_message.Message):
    __slots__ = ("gflops", "baseline_gflops", "saved", "static_gflops", "gate_gflops", "dynamic_gflops", "fusion_gflops", "widths", "lam", "num_frames", "max_budget")
    class WidthsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    GFLOPS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_GFLOPS_FIELD_NUMBER: _ClassVar[int]
    SAVED_FIELD_NUMBER: _ClassVar[int]
    STATIC_GFLOPS_FIELD_NUMBER: _ClassVar[int]
    GATE_GFLOPS_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_GFLOPS_FIELD_NUMBER: _ClassVar[int]
    FUSION_GFLOPS_FIELD_NUMBER: _ClassVar[int]
    WIDTHS_FIELD_NUMBER: _ClassVar[int]
    LAM_FIELD_NUMBER: _ClassVar[int]
    NUM_FRAMES_FIELD_NUMBER: _ClassVar[int]
    MAX_BUDGET_FIELD_NUMBER: _ClassVar[int]
    gflops: float
    baseline_gflops: float
    saved: float
    static_gflops: float
    gate_gflops: float
    dynamic_gflops: float
    fusion_gflops: float
    widths: _containers.ScalarMap[str, int]
    lam: float
    num_frames: int
    max_budget: float
    def __init__(self, gflops: _Optional[float] = ..., baseline_gflops: _Optional[float] = ..., saved: _Optional[float] = ..., static_gflops: _Optional[float] = ..., gate_gflops: _Optional[float] = ..., dynamic_gflops: _Optional[float] = ..., fusion_gflops: _Optional[float] = ..., widths: _Optional[_Mapping[str, int]] = ..., lam: _Optional[float] = ..., num_frames: _Optional[int] = ..., max_budget: _Optional[float] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("upload", "queue", "decode", "static", "gate", "dynamic", "fusion", "total")
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    STATIC_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_FIELD_NUMBER: _ClassVar[int]
    FUSION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    upload: float
    queue: float
    decode: float
    static: float
    gate: float
    dynamic: float
    fusion: float
    total: float
    def __init__(self, upload: _Optional[float] = ..., queue: _Optional[float] = ..., decode: _Optional[float] = ..., static: _Optional[float] = ..., gate: _Optional[float] = ..., dynamic: _Optional[float] = ..., fusion: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class Video(_message.Message):
    __slots__ = ("duration_s", "width", "height", "codec", "container", "decoder", "num_unreadable_frames", "num_missing_frames")
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    NUM_UNREADABLE_FRAMES_FIELD_NUMBER: _ClassVar[int]
    NUM_MISSING_FRAMES_FIELD_NUMBER: _ClassVar[int]
    duration_s: float
    width: int
    height: int
    codec: str
    container: str
    decoder: str
    num_unreadable_frames: int
    num_missing_frames: int
    def __init__(self, duration_s: _Optional[float] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., codec: _Optional[str] = ..., container: _Optional[str] = ..., decoder: _Optional[str] = ..., num_unreadable_frames: _Optional[int] = ..., num_missing_frames: _Optional[int] = ...) -> None: ...

class StreamFramesRequest(_message.Message):
    __slots__ = ("options", "frame")
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    options: StreamFramesOptions
    frame: InputFrame
    def __init__(self, options: _Optional[_Union[StreamFramesOptions, _Mapping]] = ..., frame: _Optional[_Union[InputFrame, _Mapping]] = ...) -> None: ...

class StreamFramesOptions(_message.Message):
    __slots__ = ("budget", "max_gflops")
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    MAX_GFLOPS_FIELD_NUMBER: _ClassVar[int]
    budget: float
    max_gflops: float
    def __init__(self, budget: _Optional[float] = ..., max_gflops: _Optional[float] = ...) -> None: ...

class InputFrame(_message.Message):
    __slots__ = ("jpeg", "raw", "timestamp_s")
    JPEG_FIELD_NUMBER: _ClassVar[int]
    RAW_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    jpeg: bytes
    raw: RawImage
    timestamp_s: float
    def __init__(self, jpeg: _Optional[bytes] = ..., raw: _Optional[_Union[RawImage, _Mapping]] = ..., timestamp_s: _Optional[float] = ...) -> None: ...

class RawImage(_message.Message):
    __slots__ = ("width", "height", "rgb")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    RGB_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    rgb: bytes
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ..., rgb: _Optional[bytes] = ...) -> None: ...

class StreamFramesResponse(_message.Message):
    __slots__ = ("request_id", "frame_index", "timestamp_s", "prediction", "width", "compute", "total")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    FRAME_INDEX_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    frame_index: int
    timestamp_s: float
    prediction: Prediction
    width: float
    compute: StreamCompute
    total: StreamCompute
    def __init__(self, request_id: _Optional[str] = ..., frame_index: _Optional[int] = ..., timestamp_s: _Optional[float] = ..., prediction: _Optional[_Union[Prediction, _Mapping]] = ..., width: _Optional[float] = ..., compute: _Optional[_Union[StreamCompute, _Mapping]] = ..., total: _Optional[_Union[StreamCompute, _Mapping]] = ...) -> None: ...

class StreamCompute(_message.Message):
    __slots__ = ("static_macs", "gate_macs", "dynamic_macs", "fusion_macs", "baseline_macs")
    STATIC_MACS_FIELD_NUMBER: _ClassVar[int]
    GATE_MACS_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_MACS_FIELD_NUMBER: _ClassVar[int]
    FUSION_MACS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_MACS_FIELD_NUMBER: _ClassVar[int]
    static_macs: int
    gate_macs: int
    dynamic_macs: int
    fusion_macs: int
    baseline_macs: int
    def __init__(self, static_macs: _Optional[int] = ..., gate_macs: _Optional[int] = ..., dynamic_macs: _Optional[int] = ..., fusion_macs: _Optional[int] = ..., baseline_macs: _Optional[int] = ...) -> None: ...
