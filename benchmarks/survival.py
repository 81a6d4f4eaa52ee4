"""How much of a +-8 pattern survives a lossy file: projection on the pattern, and the largest change.

Random patterns on a photograph of 224 x 224; this is about signals, not about training. Also after scaling down.
Writes benchmarks/results/survival.json.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import record
from PIL import Image
from skimage import data

import miue

WAYS: dict[str, dict[str, Any]] = {
    "PNG": {"format": "PNG"},
    "WebP lossless": {"format": "WEBP", "lossless": True},
    "JPEG quality 95": {"format": "JPEG", "quality": 95},
    "JPEG quality 90": {"format": "JPEG", "quality": 90},
    "JPEG quality 75": {"format": "JPEG", "quality": 75},
    "JPEG quality 50": {"format": "JPEG", "quality": 50},
    "WebP quality 80": {"format": "WEBP", "quality": 80},
}


def arrived(picture: np.ndarray, how: dict[str, Any]) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, **how)
    return np.asarray(Image.open(buffer).convert("RGB"), dtype=int)


def main() -> None:
    rng = np.random.default_rng(0)
    picture = np.clip(data.astronaut()[100:324, 100:324], 8, 247).astype(int)
    patterns = {"fine": rng.choice([-8, 8], picture.shape)}
    patterns["coarse"] = rng.choice([-8, 8], (56, 56, 3)).repeat(4, 0).repeat(4, 1)
    rows = []
    for name, how in WAYS.items():
        row: dict[str, Any] = {"output": name}
        base = arrived(picture.astype(np.uint8), how)
        for kind, pattern in patterns.items():
            sent = arrived((picture + pattern).astype(np.uint8), how)
            kept = float(((sent - base) * pattern).sum() / (pattern**2).sum())
            row[kind] = {"kept": kept, "worst": int(np.abs(sent - picture).max())}
        rows.append(row)
    scaled: list[dict[str, Any]] = []
    blocks = rng.choice([-8, 8], (32, 32, 3)).repeat(8, 0).repeat(8, 1)
    for name, pattern in (("pixel-wise", rng.choice([-8, 8], (256, 256, 3))), ("8 x 8 blocks", blocks)):
        image = torch.from_numpy(pattern.copy()).float().permute(2, 0, 1)[None]
        row = {"pattern": name}
        for side in (256, 224, 128, 64):
            small = F.interpolate(image, size=(side, side), mode="bilinear", antialias=True)
            row[str(side)] = float(small.square().mean().sqrt())
        scaled.append(row)
    print(record("survival", miue.Run(), rows=rows, scaled=scaled))


if __name__ == "__main__":
    main()
