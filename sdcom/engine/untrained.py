"""Networks with random weights, for timing: what a network costs does not depend on what it knows."""

import numpy as np
import torch

from sdcom.checkpoint import ModelInfo, Weights
from sdcom.config import ModelConfig
from sdcom.engine.onnx_backend import OnnxBackend
from sdcom.models.composition import SDCOM

NUM_CLASSES = 200  # of ActivityNet


def untrained_paper() -> tuple[ModelInfo, Weights]:
    """Return the paper's networks, untrained: MobileNetV2, slimmable ResNet-50, 16 frames at 224 px."""
    config = ModelConfig(labels=tuple(f"class {index}" for index in range(NUM_CLASSES)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = SDCOM(config)
    weights = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in networks.state_dict().items()}
    return ModelInfo(name="paper-untrained", version="0", config=config), weights


def untrained_paper_backend(*, num_threads: int) -> OnnxBackend:
    """Return the paper's networks in ONNX Runtime."""
    info, weights = untrained_paper()
    return OnnxBackend(info, weights, num_threads=num_threads)
