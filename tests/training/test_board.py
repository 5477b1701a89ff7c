"""What the workers tell, and the status line made of it."""

from wsss_ray.training.board import Board, State, status_line


def test_a_line_before_and_after_the_first_iteration() -> None:
    assert status_line(State(), 200, 12.3) == "0 / 200 iterations (0.0%) | starting, 12 s so far"
    state = State(iteration=120, loss=1.5, learning_rate=1e-3, first=(100.0, 20), last=150.0, miou=0.25)
    expected = "120 / 200 iterations (60.0%) | 2.00 iterations/s | loss 1.500 | lr 1.00e-03 | mIoU 0.250 | 0:00:40 left"
    assert status_line(state, 200, 99.0) == expected


def test_a_speed_leaves_out_what_came_before_a_death() -> None:
    board = Board()
    assert board.begin_training(0) is None
    for iteration in (1, 2):
        board.tell(iteration=iteration, loss=1.0, learning_rate=0.1, miou=None)
    board.begin_training(1)
    state = board.state()
    assert (state.starts, state.iteration, state.rate) == ([0, 1], 1, 0.0)


def test_a_validation_stands_until_the_next() -> None:
    board = Board()
    board.begin_training(0)
    board.tell(iteration=1, loss=1.0, learning_rate=0.1, miou=0.5)
    board.tell(iteration=2, loss=1.0, learning_rate=0.1, miou=None)
    assert board.state().miou == 0.5


def test_the_reason_of_the_worker_that_knows_counts() -> None:
    board = Board()
    board.fail("the sum is inf", certain=False)
    board.fail("image-7", certain=True)
    board.fail("image-8", certain=True)
    board.fail("the sum is inf", certain=False)
    assert board.state().problem == "image-7"
    assert board.begin_training(3) == "image-7"
    assert board.state().starts == []


def test_images_that_could_not_be_used_are_counted_once() -> None:
    board = Board()
    board.unusable(["a: truncated: early", "b: no label"])
    board.unusable(["a: truncated: early"])
    assert board.state().unusable == {"a": "truncated: early", "b": "no label"}
    line = status_line(State(iteration=1, loss=1.0, learning_rate=0.1, first=(0, 1), unusable={"a": ""}), 2, 0)
    assert "| 1 unusable |" in f"{line} |"
