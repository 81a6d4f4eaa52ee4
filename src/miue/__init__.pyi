from . import attacks, data, defenses, mi, nets, publish, testing, trace
from .analysis.analyzer import Analyzer
from .analysis.records import Analysis
from .attacks import MinMin, attack, list_attacks
from .core.errors import UserError
from .core.method import AttackFacts, BaseAttack, Facts
from .core.run import Run
from .core.types import Budget, ImageSet, Perturbation
from .data.rights import Rights
from .defenses import combination, defense, list_defenses
from .evaluation.detect import Detection, first_look
from .evaluation.evaluation import Evaluation
from .evaluation.records import Outcome
from .mi import list_estimators
from .nets import NetFacts, list_networks
from .nets.base import Net
from .report import write_report
from .training.loop import accuracy
from .victims.fit import fit
from .victims.recipe import Recipe
from .victims.recipes import list_recipes, recipe
from .workflows.add import add
from .workflows.analyze import analyze
from .workflows.evaluate import detect, evaluate
from .workflows.protect import protect
from .workflows.record import RunRecord
from .workflows.rights import read_credentials, read_rights, sign_rights, write_rights, write_server_files
from .workflows.verify import preview, returned, verify

__all__ = [
    "Analysis",
    "Analyzer",
    "AttackFacts",
    "BaseAttack",
    "Budget",
    "Detection",
    "Evaluation",
    "Facts",
    "ImageSet",
    "MinMin",
    "Net",
    "NetFacts",
    "Outcome",
    "Perturbation",
    "Recipe",
    "Rights",
    "Run",
    "RunRecord",
    "UserError",
    "accuracy",
    "add",
    "analyze",
    "attack",
    "attacks",
    "combination",
    "data",
    "defense",
    "defenses",
    "detect",
    "evaluate",
    "first_look",
    "fit",
    "list_attacks",
    "list_defenses",
    "list_estimators",
    "list_networks",
    "list_recipes",
    "mi",
    "nets",
    "preview",
    "protect",
    "publish",
    "read_credentials",
    "read_rights",
    "recipe",
    "returned",
    "sign_rights",
    "testing",
    "trace",
    "verify",
    "write_report",
    "write_rights",
    "write_server_files",
]
