"""Tests of the check for our own warnings, which every command of the other tests uses: it can fail."""

from __future__ import annotations

import warnings

import pytest
from installed import Airflow

from airflow_provider_ropo.event import model


@pytest.mark.parametrize("canary", ["parse", "run"])
def test_a_warning_of_ours_is_noticed(airflow: Airflow, monkeypatch: pytest.MonkeyPatch, canary: str) -> None:
    """A deprecation warning that names one of our files is found, given while a DAG is parsed or while a task runs."""
    monkeypatch.setenv("CANARY", canary)

    finished = airflow.python("-m", "airflow", "dags", "test", "matrix_canary", "2026-01-15")

    assert any("a canary" in line for line in finished.warnings)


def test_a_warning_of_ours_is_an_error_in_these_tests() -> None:
    """Within pytest's own process, where the tests of the operator run, the same warning is raised."""
    with pytest.raises(DeprecationWarning, match="a canary"):
        warnings.warn_explicit("a canary", DeprecationWarning, model.__file__, 1, module=model.__name__)
