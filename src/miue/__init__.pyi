from . import data, mi
from .analysis.analyzer import Analyzer
from .analysis.records import Analysis
from .attacks import MinMin, MiUe, Noise, attack
from .core.errors import UserError
from .core.run import Run
from .core.types import Budget, ImageSet, Perturbation
from .defenses import combination, defense
from .evaluation.detect import Detection, first_look
from .evaluation.proof import Proof
from .evaluation.records import Outcome
from .victims.fit import fit
from .victims.recipe import Recipe
from .victims.recipes import recipe
from .workflows.protect import Job, protect
from .workflows.prove import explain, prove
from .workflows.published import Claim, Inquiry

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
