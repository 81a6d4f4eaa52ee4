"""miue: make image data sets unlearnable with a bounded integer perturbation, and prove whether it works."""

from miue import data, mi
from miue.analyze import Analyzer
from miue.attacks import MinMin, MiUe, Noise, attack
from miue.defenses import combination, defense
from miue.detect import Detection, first_look
from miue.evaluate import Proof
from miue.jobs import Job, protect
from miue.proofs import Claim, Inquiry, explain, prove
from miue.recipes import recipe
from miue.records import Analysis, Outcome
from miue.run import Run
from miue.types import Budget, ImageSet, Perturbation, UserError
from miue.victims import Recipe, fit

__all__ = [
    "Analysis",
    "Analyzer",
    "Budget",
    "Claim",
    "Detection",
    "ImageSet",
    "Inquiry",
    "Job",
    "MiUe",
    "MinMin",
    "Noise",
    "Outcome",
    "Perturbation",
    "Proof",
    "Recipe",
    "Run",
    "UserError",
    "attack",
    "combination",
    "data",
    "defense",
    "explain",
    "first_look",
    "fit",
    "mi",
    "protect",
    "prove",
    "recipe",
]
