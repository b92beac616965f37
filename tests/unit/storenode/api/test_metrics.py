"""The text for Prometheus, by its specification."""

from __future__ import annotations

from storenode.api.metrics import Histogram, family, gauge, page


def test_a_metric_is_its_help_its_type_and_its_samples() -> None:
    assert page([gauge("a_bytes", "How large.", 12), gauge("b", "Unknown.", None)]) == (
        b"# HELP a_bytes How large.\n# TYPE a_bytes gauge\na_bytes 12\n"
    )
    assert page([family("c_total", "counter", "Events.", [({"x": "1", "y": "2"}, 3), ({"x": "4"}, None)])]) == (
        b'# HELP c_total Events.\n# TYPE c_total counter\nc_total{x="1",y="2"} 3\n'
    )


def test_a_label_is_escaped_so_that_it_cannot_forge_a_line() -> None:
    (*_, line) = family("m", "gauge", "t", [({"stream": 'a"b\\c\nd'}, 1)])
    assert line == 'm{stream="a\\"b\\\\c\\nd"} 1'


def test_a_histogram_counts_upwards_and_ends_in_all() -> None:
    took = Histogram("route")
    assert list(took.lines("t_seconds", "Time.")) == []
    for took_s in (0.0004, 0.0005, 0.003, 7.0):
        took.observe("/a", took_s)
    took.observe("/b", 0.01)
    lines = list(took.lines("t_seconds", "Time."))
    assert lines[:2] == ["# HELP t_seconds Time.", "# TYPE t_seconds histogram"]
    counts = [int(line.rpartition(" ")[2]) for line in lines if 'route="/a",le=' in line]
    assert counts == [2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 4]
    assert 't_seconds_bucket{route="/a",le="0.0005"} 2' in lines
    assert 't_seconds_bucket{route="/a",le="+Inf"} 4' in lines
    assert 't_seconds_count{route="/a"} 4' in lines
    (total,) = [line for line in lines if line.startswith('t_seconds_sum{route="/a"}')]
    assert abs(float(total.rpartition(" ")[2]) - 7.0039) < 1e-9
    assert 't_seconds_count{route="/b"} 1' in lines
