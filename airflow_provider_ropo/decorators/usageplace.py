"""``@task.ropo_usageplace_events``: report the rows that a function returns or yields to Ropo One."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from airflow.providers.common.compat.sdk import (
    Context,
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.pipeline import RunResult
from airflow_provider_ropo.task.data_interval import OTHER_DATES, RUN_DATES, RunDates
from airflow_provider_ropo.task.redaction import Redacted, RedactedRows, redact, unredacted

#: The operator's parameters for the source of the rows, which is the function here.
_NOT_HERE = ("sql", "sql_conn_id", "parameters", "sql_hook_params", "events")


def usageplace_events_task(python_callable: Callable[..., Any] | None = None, **parameters: Any) -> TaskDecorator:
    """Report each row mapping that a function returns or yields to Ropo One.

    The rows go into the operator's temporary files, never into XCom: the task's ``return_value`` is the counts. A
    generator is read to its end, row by row, before the first post; if it raises, the task ends with nothing posted.

    :param python_callable: the function; it takes arguments and the context as ``@task``'s does.
    :param parameters: those of :class:`~airflow_provider_ropo.operators.usageplace.UsageplaceEventOperator` but the
        ones for the source of the rows, and any of ``BaseOperator``.
    :raises RopoConfigurationError: when the DAG is parsed, if the parameters cannot work.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=UsageplaceEventDecoratedOperator, **parameters
    )


class UsageplaceEventDecoratedOperator(DecoratedOperator, UsageplaceEventOperator):
    """Operator behind the decorator: the rows come from the function.

    :param python_callable: the function.
    :param op_args: its positional arguments, templated.
    :param op_kwargs: its keyword arguments, templated.
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *(name for name in UsageplaceEventOperator.template_fields if name not in _NOT_HERE),
    )
    # An argument that ends in .sql is a value for the function, not a template file.
    template_ext: Sequence[str] = ()
    template_fields_renderers: ClassVar[dict[str, str]] = {**DecoratedOperator.template_fields_renderers}
    custom_operator_name = "@task.ropo_usageplace_events"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in _NOT_HERE:
            if name in kwargs:
                raise RopoConfigurationError(f"`{name}` cannot be used here: the rows come from the function")
        if inspect.iscoroutinefunction(python_callable) or inspect.isasyncgenfunction(python_callable):
            raise RopoConfigurationError("the function must not be async: rows are read one after the other")
        super().__init__(
            python_callable=python_callable, op_args=op_args, op_kwargs=op_kwargs, events=RedactedRows(()), **kwargs
        )

    def deliver(self, context: Context, *, preview: bool) -> RunResult:
        """Read the rows of the function, sort them and post them."""
        # Airflow has stored the rendered fields by now: the function gets the real arguments.
        self.op_args = [unredacted(value) for value in self.op_args]
        self.op_kwargs = {name: unredacted(value) for name, value in self.op_kwargs.items()}
        self._record_dates(context)
        context_merge(context, self.op_kwargs)
        arguments = determine_kwargs(self.python_callable, self.op_args, context)
        self.events = _FunctionRows(self._source, lambda: self.python_callable(*self.op_args, **arguments))
        return super().deliver(context, preview=preview)

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: Any = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render one value; of the function's arguments, show only what the DAG's author wrote."""
        if content is self.op_kwargs and seen_oids:
            # The arguments that a mapped task got from other tasks are already in this dictionary. They are redacted in
            # place, because Airflow logs the unrendered field if rendering fails.
            self.op_kwargs.update({name: Redacted(arg) for name, arg in content.items() if id(arg) in seen_oids})
        rendered = super().render_template(content, context, jinja_env, seen_oids)
        if content is self.op_kwargs:
            return {name: redact(content[name], value) for name, value in rendered.items()}
        if content is self.op_args:
            return [redact(given, value) for given, value in zip(content, rendered, strict=True)]
        return rendered

    @staticmethod
    def xcom_push(context: Context, key: str, value: Any) -> None:
        """Push one of the counts (``multiple_outputs``); up to Airflow 3.0, ``@task`` calls this method."""
        context["ti"].xcom_push(key=key, value=value)

    @property
    def _source(self) -> str:
        return f"the function {self.python_callable.__name__}"

    def _record_dates(self, context: Any) -> None:
        """Record which of the run's dates are parameters of the function, as is done for templates."""
        dates = RunDates(context, self._dates_used)
        for name, parameter in inspect.signature(self.python_callable).parameters.items():
            # A parameter with a default value accepts a run without that date.
            asked = name in context or parameter.default is parameter.empty
            if name in RUN_DATES | OTHER_DATES and name not in self.op_kwargs and asked:
                # A missing date is recorded when it is converted to text; being a parameter counts as use.
                str(dates.record(name, context.get(name)))


class _FunctionRows(Iterable[Mapping[str, Any]]):
    """The rows of a function, which is called when iteration starts."""

    def __init__(self, source: str, function: Callable[[], Any]) -> None:
        self._source = source
        self._function = function

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        rows = self._function()
        requirement = f"{self._source} must return or yield row mappings"
        if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
            raise RopoConfigurationError(f"{requirement}; it returned a {type(rows).__name__}")
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise RopoConfigurationError(f"{requirement}; item {number} is a {type(row).__name__}")
            yield row
