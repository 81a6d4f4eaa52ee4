"""Whether somebody who received the set would notice."""

from __future__ import annotations

import torch

from miue.core.run import Run
from miue.core.types import ImageSet
from miue.evaluation import detect
from miue.evaluation.detect import Detection, first_look
from miue.testing import tiny


def marked(strength: int) -> tuple[ImageSet, ImageSet]:
    """Pictures that say nothing about their labels, and the same with a pattern a class."""
    clean = tiny(per_class=30, size=8)
    pattern = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)).sign() * strength
    shifted = (clean.images.float() + pattern[clean.labels]).clamp(0, 255).to(torch.uint8)
    return clean.with_images(shifted), clean


def test_a_pattern_a_class_is_noticed(run: Run):
    """On held-out pictures, where learning by heart does not help."""
    found = first_look(*marked(60), run)
    assert found.noticed and "on held-out pictures of the set" in found.reason
    assert set(found.looks) == {"linear", "mlp2"} == set(found.clean)
    assert found.looks["mlp2"].held_out > 0.8 > 0.6 > found.clean["mlp2"].held_out
    assert found.looks["linear"].train > 0.95
    assert Detection.model_validate_json(found.model_dump_json()) == found


def test_clean_pictures_are_not(run: Run):
    _, clean = marked(0)
    found = first_look(clean, clean, run)
    assert not found.noticed and found.looks == found.clean and found.data == found.reference == clean.digest


def test_a_look_is_the_same_again_and_keeps_no_state(keeping: Run, run: Run):
    data, _ = marked(60)
    assert detect.look(data, run) == detect.look(data, keeping)
    assert keeping.keep is not None and not keeping.keep.exists()
