"""Deaths are counted per unit and image, and only where the image can be to blame."""

from wsss_ray.engine.ledger import Ledger


def make(alive: set[str] | None = None) -> Ledger:
    nodes = {"node"} if alive is None else alive
    return Ledger(lambda node: node in nodes)


def die_together(ledger: Ledger, node: str = "node") -> None:
    ledger.enquire("s", "u")
    ledger.begin("s", "u", node)


def test_a_first_attempt_runs_together() -> None:
    orders = make().enquire("s", "u")
    assert not orders.retried
    assert not orders.isolate
    assert not orders.quarantined


def test_isolation_follows_the_second_death() -> None:
    ledger = make()
    die_together(ledger)
    assert not ledger.enquire("s", "u").isolate
    ledger.begin("s", "u", "node")
    assert ledger.enquire("s", "u").isolate


def test_an_image_alone_at_two_deaths_is_quarantined_and_no_other() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    ledger.enquire("s", "u")
    for image in ("a", "a"):
        ledger.begin("s", "u", "node", "b")
        ledger.end("s", "u", finished=False)
        ledger.begin("s", "u", "node", image)
        orders = ledger.enquire("s", "u")
    assert orders.quarantined == {"a"}


def test_who_survives_alone_is_remembered_and_only_other_deaths_are_unexplained() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    ledger.enquire("s", "u")
    ledger.begin("s", "u", "node", "a")
    ledger.end("s", "u", finished=False)
    ledger.begin("s", "u", "node", "b")
    orders = ledger.enquire("s", "u")
    assert orders.survived == {"a"}
    assert (orders.deaths, orders.unexplained) == (3, 2)


def test_one_death_alone_does_not_quarantine() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    ledger.enquire("s", "u")
    ledger.begin("s", "u", "node", "a")
    assert ledger.enquire("s", "u").quarantined == frozenset()


def test_the_loss_of_a_node_does_not_count() -> None:
    ledger = make(alive=set())
    for _ in range(5):
        die_together(ledger)
    orders = ledger.enquire("s", "u")
    assert not orders.isolate
    assert orders.retried


def test_stages_and_units_are_counted_apart() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    assert not ledger.enquire("other", "u").isolate
    assert not ledger.enquire("s", "other").isolate
    assert ledger.enquire("s", "u").isolate


def test_a_finished_unit_is_forgotten() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    ledger.enquire("s", "u")
    ledger.end("s", "u", finished=True)
    orders = ledger.enquire("s", "u")
    assert not orders.isolate
    assert not orders.retried


def test_an_end_without_a_begin_is_nothing() -> None:
    """As after the ledger's own restart."""
    ledger = make()
    ledger.end("s", "u", finished=False)
    assert not ledger.enquire("s", "u").retried
