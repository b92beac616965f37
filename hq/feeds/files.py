"""Reading feed files: CSV, NDJSON or Parquet, to rows of text with their line numbers.

The first mistake refuses the file: a feed is never read in part.
"""

from __future__ import annotations

import codecs
import csv
import importlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hq.core import edits
from hq.core.feed_diff import FeedRow, Table
from hq.errors import BadFeed, BadField
from storelink.contract.codec import strict_json
from storelink.contract.contexts import Context
from storelink.contract.errors import ContractViolation

FEED_BYTES_MAX = 1024 * 1024 * 1024
DELIMITERS = ",;\t"

Feed = list[FeedRow] | Table


def read_feed(path: Path, context: Context, mapping: Mapping[str, str]) -> Feed:
    """
    Read all of a feed; as a table if it is CSV with a row in every line.

    Args:
        path: at most FEED_BYTES_MAX; the suffix names the format.
        mapping: column of the feed -> field of the context; other columns must be fields by name.

    Raises:
        BadFeed: with file, line and field of the first mistake.
    """
    readers: dict[str, Callable[[], Feed]] = {
        ".csv": lambda: csv_feed(_bytes(path), path.name, context, mapping),
        ".tsv": lambda: csv_feed(_bytes(path), path.name, context, mapping),
        ".ndjson": lambda: list(ndjson_rows(_bytes(path), path.name, context, mapping)),
        ".jsonl": lambda: list(ndjson_rows(_bytes(path), path.name, context, mapping)),
        ".parquet": lambda: list(parquet_rows(path, context, mapping)),
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BadFeed(path.name, 0, "", "is no .csv, .ndjson or .parquet file", hint="rename or convert it")
    return reader()


def csv_feed(content: bytes, name: str, context: Context, mapping: Mapping[str, str]) -> Feed:
    """Read CSV with a header line; comma, semicolon or tab, whichever the header has most of."""
    text, is_utf8 = _decoded(content, name)
    if is_utf8:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        try:
            rows = list(reader)
        except csv.Error:
            rows = []
        widths = set(map(len, rows))
        if len(widths) == 1 and 0 not in widths and len(rows) == reader.line_num:  # a row in every line: nearly all
            return Table(_header(rows[0], name, 1, context, mapping), rows[1:], 2)
    return list(csv_rows(text, is_utf8, name, context, mapping))


def _delimiter(text: str) -> str:
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    return max(DELIMITERS, key=header_line.count)


def csv_rows(text: str, is_utf8: bool, name: str, context: Context, mapping: Mapping[str, str]) -> Iterator[FeedRow]:
    """Read row by row, so that the first mistake in the file is the one that is named."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    names: list[str] | None = None
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BadFeed(
                name, line, "", f"is not CSV: {error}", hint="quote the value, and double its quotes"
            ) from None
        if cells is None:
            break
        if not is_utf8:
            _check_decoded(name, line, names or cells, cells)
        if cells and names is None:
            names = _header(cells, name, line, context, mapping)
        elif cells:
            yield FeedRow(line, _row(cells, names or [], name, line))
        line = reader.line_num + 1
    if names is None:
        raise BadFeed(name, 0, "", "is empty: it lacks even a header line", hint=_fields_hint(context))


def ndjson_rows(content: bytes, name: str, context: Context, mapping: Mapping[str, str]) -> Iterator[FeedRow]:
    """Read one JSON object a line."""
    known = set(edits.fields_of(context))
    content_text, is_utf8 = _decoded(content, name)
    for line, text in enumerate(content_text.split("\n"), start=1):
        if not text.strip():
            continue
        if not is_utf8:
            _check_decoded(name, line, *_loosely(text))
        try:
            found = strict_json(text)
        except ContractViolation as error:
            raise BadFeed(name, line, "", f"is not JSON: {error.detail}") from None
        if not isinstance(found, dict):
            raise BadFeed(name, line, "", "is not a JSON object", hint='such as {"sku": "4011", ...}')
        fields = _renamed(found, name, line, mapping)
        if not fields.keys() <= known:
            _refuse_unknown(context, fields, name, line)
        yield FeedRow(line, {field: _text(value, name, line, field, context) for field, value in fields.items()})


def parquet_rows(path: Path, context: Context, mapping: Mapping[str, str]) -> Iterator[FeedRow]:
    """Read Parquet, where pyarrow is installed; a row's line is its number."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise BadFeed(path.name, 0, "", "reading Parquet needs pyarrow", hint="pip install pyarrow") from None
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise BadFeed(path.name, 0, "", f"is not Parquet: {str(error)[:200]}") from None
    names = _header(table.column_names, path.name, 0, context, mapping)
    row = 0
    for batch in table.to_batches():
        for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            row += 1
            named = zip(names, cells, strict=True)
            yield FeedRow(row, {field: _text(cell, path.name, row, field, context) for field, cell in named})


def check_mapping(context: Context, mapping: Mapping[str, str]) -> None:
    """
    Check which column of a feed stands for which field.

    Args:
        mapping: column of the feed -> field of the context.

    Raises:
        BadField: a name that is no field of the context; or field `mapping`: two columns stand for one field.
    """
    edits.check_names(context, mapping.values())
    for column, field in mapping.items():
        if sum(field == each for each in mapping.values()) > 1:
            raise BadField("mapping", f"'{column}={field}' maps a field twice")


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(FEED_BYTES_MAX + 1)
    except OSError as error:
        raise BadFeed(path.name, 0, "", f"cannot be read: {error.strerror}") from error
    if len(content) > FEED_BYTES_MAX:
        raise BadFeed(path.name, 0, "", f"is larger than {FEED_BYTES_MAX} bytes", hint="split it")
    return content


def _decoded(content: bytes, name: str) -> tuple[str, bool]:
    """The text, and whether all of it is UTF-8; other bytes become surrogates, so that an error can name the field."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadFeed(name, 0, "", "is UTF-16, not UTF-8", hint=f"iconv -f UTF-16 -t UTF-8 {name}")
    try:
        return content.decode("utf-8-sig"), True
    except UnicodeDecodeError:
        return content.decode("utf-8-sig", errors="surrogateescape"), False


def _loosely(text: str) -> tuple[Sequence[str], Sequence[object]]:
    """Names and values of a damaged JSON line, or the line as one value."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return (list(found), list(found.values())) if isinstance(found, dict) else ([""], [text])


def _check_decoded(name: str, line: int, fields: Iterable[str], cells: Iterable[object]) -> None:
    """Raise BadFeed for the first cell with a byte that is not UTF-8."""
    for field, cell in zip(fields, cells, strict=False):
        for character in str(cell):
            if "\udc80" <= character <= "\udcff":
                problem = f"byte {ord(character) - 0xDC00:#04x} is not UTF-8"
                raise BadFeed(name, line, field, problem, hint=f"convert it, such as iconv -f LATIN1 -t UTF-8 {name}")


def _header(cells: Sequence[str], name: str, line: int, context: Context, mapping: Mapping[str, str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    fields = _renamed(dict.fromkeys(columns), name, line, mapping)
    if len(fields) != len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise BadFeed(name, line, twice, "is twice in the header")
    _refuse_unknown(context, fields, name, line)
    for missing in mapping.keys() - set(columns):
        raise BadFeed(name, line, missing, "is mapped, but is not in the header", hint=f"header: {', '.join(columns)}")
    for key in context.keys:
        if key.name not in fields and key.default is None:
            raise BadFeed(name, line, key.name, "no such column, and it is the key", hint=_map_hint(key.name))
    return list(fields)


def _row(cells: Sequence[str], names: Sequence[str], name: str, line: int) -> dict[str, str | None]:
    if len(cells) != len(names):
        raise BadFeed(
            name,
            line,
            "",
            f"has {len(cells)} values for {len(names)} columns",
            hint="quote values that hold the delimiter",
        )
    return dict(zip(names, cells, strict=True))


def _renamed(found: Mapping[str, Any], name: str, line: int, mapping: Mapping[str, str]) -> dict[str, Any]:
    if not mapping:
        return dict(found)
    renamed = {mapping.get(column, column): value for column, value in found.items()}
    if len(renamed) != len(found):
        twice = next(field for column, field in mapping.items() if {column, field} <= found.keys() and column != field)
        raise BadFeed(name, line, twice, "is filled from two columns")
    return renamed


def _refuse_unknown(context: Context, fields: Iterable[str], name: str, line: int) -> None:
    try:
        edits.check_names(context, fields)
    except BadField as error:
        raise BadFeed(
            name, line, error.field, error.problem, hint=f"{_map_hint('FIELD', error.field)}; {error.hint}"
        ) from None


def _text(value: Any, name: str, line: int, field: str, context: Context) -> str | None:
    """A cell as a person would have typed it. Raises BadFeed."""
    try:
        return edits.as_text(context, field, value)
    except BadField as error:
        raise BadFeed(name, line, field, error.problem) from None


def _map_hint(field: str, column: str = "COLUMN") -> str:
    return f"name a column for it with --map {column or 'COLUMN'}={field}"


def _fields_hint(context: Context) -> str:
    return f"fields: {', '.join(edits.fields_of(context))}"
