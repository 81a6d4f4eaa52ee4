from . import data, mi
from .analyze import Analyzer
from .attacks import MinMin, MiUe, Noise, attack
from .defenses import combination, defense
from .detect import Detection, first_look
from .evaluate import Proof
from .jobs import Job, protect
from .proofs import Claim, Inquiry, explain, prove
from .recipes import recipe
from .records import Analysis, Outcome
from .run import Run
from .types import Budget, ImageSet, Perturbation, UserError
from .victims import Recipe, fit

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
