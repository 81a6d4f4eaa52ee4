"""A report for people, one file: from the records of a protection alone."""

from miue.report.write import write_report

__all__ = ["write_report"]
