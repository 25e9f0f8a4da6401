"""Packages that only some figures need, and that the extra `evaluate` installs."""

from importlib.util import find_spec

from .errors import EvaluationError


INSTALL = 'pip install "modeling_vlkd[evaluate]"'


def require_packages(purpose: str, *packages: str):
    """Stop, before any work, if a package is not installed.

    Args:
        purpose: what needs it, for the message: "Scoring captions".
    """
    for package in packages:
        if find_spec(package) is None:
            raise missing_package(purpose, package)


def missing_package(purpose: str, package: str) -> EvaluationError:
    return EvaluationError(f"{purpose} needs {package}, which is not installed; {INSTALL}")
