"""What the figures were measured on."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.dpsgd.settings import Settings

METHOD = (
    "Each round takes one whole step of every engine, in rotating order, in one process a workload; a ratio is to the plain "
    "step of the same round; median and quartiles over rounds. time_ratio: process CPU time (CUDA events on a GPU). "
    "wall_ratio: the clock. glibc keeps freed memory, for all alike. memory_ratio: peak of a fresh process less its imports "
    "(allocated memory on a GPU), plain and bract at the same physical batch; glibc as it comes. Data are random; every "
    "engine has the same weights, batch and AdamW (fused, no weight decay), and its gradient is compared with an explicit "
    "one first."
)


def machine(settings: Settings) -> dict[str, Any]:
    """Processor, device, libraries, and how busy the machine was at the start."""
    cpu = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if settings.device == "cuda" else "cpu",
        "threads": settings.threads,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "opacus", "timm")},
        "load": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
