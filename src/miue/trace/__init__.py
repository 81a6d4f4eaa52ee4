"""Ownership trace: a secret mark in what is published, and an exact test whether a classifier was trained on it."""

from miue.trace.answers import Answers, Suspect
from miue.trace.judge import Verdict, ask_directly, direct_test, gradient_test, judge, picture_test, weigh
from miue.trace.marks import Nothing, Tracing, mark_of, marked, rows_of, summed, traced
from miue.trace.questions import Asked, Questions
from miue.trace.secret import Opened, Parameters, Secret
from miue.trace.suspects import network, suspect_of

__all__ = [
    "Answers",
    "Asked",
    "Nothing",
    "Opened",
    "Parameters",
    "Questions",
    "Secret",
    "Suspect",
    "Tracing",
    "Verdict",
    "ask_directly",
    "direct_test",
    "gradient_test",
    "judge",
    "mark_of",
    "marked",
    "network",
    "picture_test",
    "rows_of",
    "summed",
    "suspect_of",
    "traced",
    "weigh",
]
