"""Feed files, as they come: delimiters, encodings, and everything that is wrong with them."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from hq.core.feed_diff import FeedRow
from hq.errors import BadFeed, BadField
from hq.feeds.files import check_mapping, read_feed
from storelink.contract.contexts import PRICE, PRODUCT, Context


def read(tmp_path: Path, name: str, content: bytes, context: Context = PRODUCT, **mapping: str) -> list[FeedRow]:
    path = tmp_path / name
    path.write_bytes(content)
    return list(read_feed(path, context, mapping))


@pytest.mark.parametrize(
    "content",
    [
        b"sku,name\n1,A\n2,\n",
        b"sku;name\r\n1;A\r\n2;\r\n",
        b"sku\tname\n1\tA\n2\t",
        b"\xef\xbb\xbfsku,name\n1,A\n\n2,\n",
        b'"sku","name"\n"1","A"\n"2",""\n',
    ],
)
def test_csv_is_read_whatever_the_delimiter_and_line_end(tmp_path: Path, content: bytes) -> None:
    assert [row.fields for row in read(tmp_path, "f.csv", content)] == [
        {"sku": "1", "name": "A"},
        {"sku": "2", "name": ""},
    ]


def test_a_line_number_is_where_the_row_begins(tmp_path: Path) -> None:
    rows = read(tmp_path, "f.csv", b'sku,name\n1,"two\nlines"\n\n2,B\n')
    assert [(row.line, row.fields["sku"]) for row in rows] == [(2, "1"), (5, "2")]


def test_columns_are_read_under_the_names_they_are_mapped_to(tmp_path: Path) -> None:
    assert read(tmp_path, "f.csv", b"Artikel,name\n1,A\n", Artikel="sku") == [FeedRow(2, {"sku": "1", "name": "A"})]
    assert read(tmp_path, "f.ndjson", b'{"Artikel":1}\n', Artikel="sku") == [FeedRow(1, {"sku": "1"})]


def test_json_values_become_the_text_a_person_would_type(tmp_path: Path) -> None:
    content = (
        b'{"sku":4011,"amount":1.10,"currency":"EUR"}\n\n{"sku":"2","amount":100000000000000000000.5,"ends_at":null}'
    )
    assert read(tmp_path, "f.ndjson", content, PRICE) == [
        FeedRow(1, {"sku": "4011", "amount": "1.1", "currency": "EUR"}),
        FeedRow(3, {"sku": "2", "amount": "100000000000000000000", "ends_at": None}),
    ]
    assert (
        read(tmp_path, "f.ndjson", b'{"sku":"1","attributes":{"b":1,"a":2}}')[0].fields["attributes"] == '{"a":2,"b":1}'
    )


@pytest.mark.parametrize(
    ("content", "line", "field", "says"),
    [
        (b"", 0, "", "lacks even a header"),
        (b"\n\n", 0, "", "lacks even a header"),
        (b"name\nA\n", 1, "sku", "it is the key"),
        (b"sku,colour\n1,red\n", 1, "colour", "no field of product"),
        (b"sku,sku\n1,1\n", 1, "sku", "twice"),
        (b"sku,name\n1,A\n2\n", 3, "", "1 values for 2 columns"),
        (b"sku,name\n1,A\n2,B,C\n", 3, "", "3 values for 2 columns"),
        (b"sku,name\n1,A\n2,M\xfcsli\n", 3, "name", "byte 0xfc is not UTF-8"),
        (b"sku,n\xe4me\n1,A\n", 1, "n\udce4me", "byte 0xe4 is not UTF-8"),
        (b'sku,name\n1,"A\n', 2, "", "is not CSV"),
        (b'sku,name\n1,"A"B\n', 2, "", "is not CSV"),
        ("sku,name\n1,A\n".encode("utf-16"), 0, "", "UTF-16"),
    ],
)
def test_a_bad_csv_names_file_line_and_field(tmp_path: Path, content: bytes, line: int, field: str, says: str) -> None:
    with pytest.raises(BadFeed, match=says) as caught:
        read(tmp_path, "f.csv", content)
    assert (caught.value.file, caught.value.line, caught.value.field) == ("f.csv", line, field)


@pytest.mark.parametrize(
    ("content", "line", "field", "says"),
    [
        (b'{"sku":"1"}\n{"sku":', 2, "", "is not JSON"),
        (b'{"sku":"1","sku":"2"}', 1, "", "names a key twice"),
        (b"[1]", 1, "", "not a JSON object"),
        (b'{"sku":"1","colour":"red"}', 1, "colour", "no field"),
        (b'{"sku":true}', 1, "sku", "text or a number"),
        (b'{"sku":4011.0}', 1, "sku", "text or a number"),
        (b'{"sku":"1","name":["A"]}', 1, "name", "text or a number"),
        (b'{"sku":"1","name":NaN}', 1, "", "NaN"),
        (b'{"sku":"1","name":"M\xfc"}', 1, "name", "byte 0xfc is not UTF-8"),
    ],
)
def test_a_bad_ndjson_names_file_line_and_field(
    tmp_path: Path, content: bytes, line: int, field: str, says: str
) -> None:
    with pytest.raises(BadFeed, match=says) as caught:
        read(tmp_path, "f.ndjson", content)
    assert (caught.value.file, caught.value.line, caught.value.field) == ("f.ndjson", line, field)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFeed, match=r"no \.csv"):
        read(tmp_path, "f.xlsx", b"")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, *_: Any) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(BadFeed, match="needs pyarrow") as caught:
        read(tmp_path, "f.parquet", b"")
    assert caught.value.hint == "pip install pyarrow"


@pytest.mark.parametrize(
    ("mapping", "says"),
    [({"x": "colour"}, "no field"), ({"x": "sku", "y": "sku"}, "'x=sku' maps a field twice")],
)
def test_a_bad_mapping_is_refused(mapping: dict[str, str], says: str) -> None:
    with pytest.raises(BadField, match=says):
        check_mapping(PRODUCT, mapping)


def test_two_columns_for_one_field_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFeed, match="filled from two columns"):
        read(tmp_path, "f.csv", b"sku,Artikel\n1,2\n", Artikel="sku")
    with pytest.raises(BadFeed, match="is not in the header"):
        read(tmp_path, "f.csv", b"sku\n1\n", Artikel="name")
