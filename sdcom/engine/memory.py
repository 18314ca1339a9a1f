"""Telling that memory ran out from other failures, whichever library says so, without importing any."""

_SAYINGS = (
    "can't allocate memory",  # torch on a processor: a plain RuntimeError of its DefaultCPUAllocator
    "Failed to allocate memory",  # ONNX Runtime's arenas, processor and CUDA: a RuntimeException
)


def ran_out_of_memory(exc: BaseException) -> bool:
    """Return whether a backend's exception says that a batch did not fit into memory.

    It is a `MemoryError` (Python, numpy), any library's `OutOfMemoryError` (torch on CUDA), or a
    runtime error in the words of torch's or ONNX Runtime's allocators.
    """
    if isinstance(exc, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(exc).__mro__):
        return True
    return any(saying in str(exc) for saying in _SAYINGS)
