"""Deaths are counted per unit and image, and only where the image can be to blame."""

from wsss_ray.engine.ledger import Ledger


def make(alive: set[str] | None = None) -> Ledger:
    nodes = {"node"} if alive is None else alive
    return Ledger(lambda node: node in nodes)


def die_together(ledger: Ledger, node: str = "node") -> None:
    ledger.history("s", "u")
    ledger.begin("s", "u", node)


def test_a_first_attempt_runs_together() -> None:
    history = make().history("s", "u")
    assert not history.retried
    assert not history.isolate
    assert not history.quarantined


def test_isolation_follows_the_second_death() -> None:
    ledger = make()
    die_together(ledger)
    assert not ledger.history("s", "u").isolate
    ledger.begin("s", "u", "node")
    assert ledger.history("s", "u").isolate


def test_an_image_alone_at_two_deaths_is_quarantined_and_no_other() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    ledger.history("s", "u")
    for image in ("a", "a"):
        ledger.begin("s", "u", "node", "b")
        ledger.end("s", "u", finished=False)
        ledger.begin("s", "u", "node", image)
        history = ledger.history("s", "u")
    assert history.quarantined == {"a"}


def test_who_survives_alone_is_remembered_and_only_other_deaths_are_unexplained() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    ledger.history("s", "u")
    ledger.begin("s", "u", "node", "a")
    ledger.end("s", "u", finished=False)
    ledger.begin("s", "u", "node", "b")
    history = ledger.history("s", "u")
    assert history.survived == {"a"}
    assert (history.deaths, history.unexplained) == (3, 2)


def test_one_death_alone_does_not_quarantine() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    ledger.history("s", "u")
    ledger.begin("s", "u", "node", "a")
    assert ledger.history("s", "u").quarantined == frozenset()


def test_the_loss_of_a_node_does_not_count() -> None:
    ledger = make(alive=set())
    for _ in range(5):
        die_together(ledger)
    history = ledger.history("s", "u")
    assert not history.isolate
    assert history.retried


def test_stages_and_units_are_counted_apart() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    assert not ledger.history("other", "u").isolate
    assert not ledger.history("s", "other").isolate
    assert ledger.history("s", "u").isolate


def test_a_finished_unit_is_forgotten() -> None:
    ledger = make()
    die_together(ledger)
    die_together(ledger)
    ledger.history("s", "u")
    ledger.end("s", "u", finished=True)
    history = ledger.history("s", "u")
    assert not history.isolate
    assert not history.retried


def test_an_end_without_a_begin_is_nothing() -> None:
    """As after the ledger's own restart."""
    ledger = make()
    ledger.end("s", "u", finished=False)
    assert not ledger.history("s", "u").retried
