"""Settings that presets of several attacks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Our presets of this name, which usual counter-measures do not undo; docs/log.md has the trials.
LASTING: Mapping[str, Any] = {
    "surrogate": "small-resnet:width=4",
    "epochs": 36,
    "epochs_at": 5000,
    "steps": 3,
    "step_size": 2.0,
    "batch": 32,
    "noise_momentum": 0.9,
    "channels": "luma",
    "colour": 3.0,
    "colour_epochs": 12,
    "restarts": 2,
}
