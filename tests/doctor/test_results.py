from __future__ import annotations

from wsss_ray.doctor.results import CheckResult, format_results, merge

GOOD = CheckResult(check="clock", found="within 60 s of the driver's")
SLOW = CheckResult(check="GPU", found="T4", state="warning", advice="cool it.")


def test_nodes_of_equal_findings_share_an_entry() -> None:
    groups = merge([("10.0.0.1", [GOOD]), ("10.0.0.2", [SLOW, GOOD]), ("10.0.0.3", [GOOD])])
    assert [(group.name, group.results) for group in groups] == [
        ("10.0.0.1 and 1 more", (GOOD,)),
        ("10.0.0.2", (SLOW, GOOD)),
    ]


def test_the_table_ends_with_what_to_do() -> None:
    assert format_results(merge([("a", [SLOW, GOOD])])).splitlines() == [
        "node a",
        "  warning  GPU    T4",
        "  ok       clock  within 60 s of the driver's",
        "warning: GPU on a: cool it.",
    ]
