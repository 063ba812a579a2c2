"""Statements of the hot path, compiled once for each dialect.

Building a statement and compiling it again costs SQLAlchemy ten times what SQLite then needs to
run it: with a few of them in every model call, that is most of what a call costs.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Dialect, Insert
from sqlalchemy.sql.expression import Select, UpdateBase

Row = tuple[Any, ...]
_Processor = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Compiled:
    """The SQL of one dialect with positional parameters, and how values go in and come out.

    `going` and `coming` are the parameters and columns that must be changed on the way.
    """

    sql: str
    parameters: tuple[str, ...]
    going: tuple[tuple[int, _Processor], ...]
    coming: tuple[tuple[int, _Processor], ...]
    constants: Mapping[str, Any]  # what the statement itself says, or the dialect adds to it
    row: str | None  # of an INSERT of whole rows: its row of parameters, the end of its SQL

    def bind(self, values: Mapping[str, Any]) -> Row:
        """The parameters in their order, as the driver takes them."""
        if self.constants:
            values = {**self.constants, **values}
        row = [values[name] for name in self.parameters]
        for at, process in self.going:
            row[at] = process(row[at])
        return tuple(row)

    def of_many(self, rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
        """An INSERT of one row as one of these: its SQL and parameters, as the driver takes them.

        Each row has all columns, in their order, as they are before they go in.
        """
        width = len(self.parameters)
        cells = list(chain.from_iterable(rows))
        for at, process in self.going:
            cells[at::width] = [process(cell) for cell in cells[at::width]]
        return self.sql + f", {self.row}" * (len(rows) - 1), cells

    def read(self, row: Row) -> Row:
        """A row of the driver's as the columns' types mean it."""
        cells = list(row)
        for at, process in self.coming:
            cells[at] = process(cells[at])
        return tuple(cells)


def _needed(processors: Iterable[_Processor | None]) -> tuple[tuple[int, _Processor], ...]:
    return tuple((at, each) for at, each in enumerate(processors) if each is not None)


class Prepared:
    """A statement whose form never changes: make one beside the tables it is of.

    What varies is a `bindparam`, or a column of an INSERT, each of which must be given a value.
    An IN with a list of varying length is another form each time and cannot be prepared.
    """

    def __init__(self, statement: Select[Any] | UpdateBase) -> None:
        self.statement = statement
        self._compiled: dict[str, Compiled] = {}

    @property
    def columns(self) -> Sequence[str]:
        """Of an INSERT, those of its table."""
        assert isinstance(self.statement, Insert)
        return self.statement.table.columns.keys()

    def compiled(self, dialect: Dialect) -> Compiled:
        """For a dialect with positional parameters."""
        found = self._compiled.get(dialect.name)
        if found is None:
            found = self._compiled[dialect.name] = self._compile(dialect)
        return found

    def _compile(self, dialect: Dialect) -> Compiled:
        compiled: Any = self.statement.compile(dialect=dialect)
        sql = str(compiled)
        row = f"({', '.join('?' * len(compiled.positiontup))})"
        whole = (
            isinstance(self.statement, Insert)
            and compiled.positiontup == list(self.columns)
            and sql.endswith(f"VALUES {row}")
        )
        return Compiled(
            sql=sql,
            parameters=tuple(compiled.positiontup),
            going=_needed(
                compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
                for name in compiled.positiontup
            ),
            coming=_needed(
                column.type.dialect_impl(dialect).result_processor(dialect, None)
                for column in self.statement.exported_columns
            ),
            constants={
                name: compiled.binds[name].effective_value
                for name in compiled.positiontup
                if not compiled.binds[name].required
            },
            row=row if whole else None,
        )
