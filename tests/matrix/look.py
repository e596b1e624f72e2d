"""Program that prints facts about the package in this Airflow as JSON; run in an Airflow home."""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from pathlib import Path
from typing import Any

import airflow_provider_ropo


def main() -> None:
    """Print it."""
    looked = {
        "modules": modules(),
        "retry_policy": retry_policy(),
        "plugin": plugin(),
        "links": links(),
        "shipped_examples": shipped_examples(),
    }
    sys.stdout.write(json.dumps(looked) + "\n")


def modules() -> list[str]:
    """Import every module of the package that this Airflow uses."""
    from airflow import __version__

    names = [module.name for module in pkgutil.walk_packages(airflow_provider_ropo.__path__, "airflow_provider_ropo.")]
    early = tuple(int(part) for part in __version__.split(".")[:2]) < (3, 2)
    wanted = [
        name
        for name in names
        # Airflow asks for commands since 3.2.
        if not name.endswith("__main__") and not (early and name.startswith("airflow_provider_ropo.cli."))
    ]
    return [importlib.import_module(name).__name__ for name in wanted]


def retry_policy() -> str:
    """Return the kind of the operator's own retry policy."""
    from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

    return type(getattr(UsageplaceEventOperator(task_id="report", events=[]), "retry_policy", None)).__name__


def plugin() -> dict[str, int]:
    """Return how much the plugin adds."""
    from airflow_provider_ropo.plugins.report import RopoPlugin

    return {name: len(getattr(RopoPlugin, name)) for name in ("fastapi_apps", "external_views")}


def links() -> dict[str, list[str]]:
    """Return the names of the links of each task, after its DAG has been through Airflow's serialization."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    except ImportError:  # before 3.2
        from airflow.serialization.serialized_objects import SerializedDAG as Serialization  # type: ignore[assignment]

    bag = dag_bag(Path("dags"))
    assert bag.import_errors == {}, bag.import_errors
    found = {}
    for dag_id, dag in bag.dags.items():
        read = Serialization.from_dict(json.loads(json.dumps(Serialization.to_dict(dag))))
        found[dag_id] = sorted({name for task in read.tasks for name in task.extra_links})
    return found


def shipped_examples() -> list[str]:
    """Return the ids of the DAGs that Airflow loads from the package's own folder of examples."""
    return sorted(dag_bag(Path(airflow_provider_ropo.__path__[0]) / "example_dags").dags)


def dag_bag(folder: Path) -> Any:
    """Load a folder of DAGs as this Airflow does."""
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:  # before 3.2
        from airflow.models.dagbag import DagBag  # type: ignore[no-redef]
    return DagBag(dag_folder=folder)


main()
