"""The monitor: reports of the workers, and the status line."""

from wsss_ray.training.monitor import TrainingMonitor, TrainingState, status_line


def test_a_line_before_and_after_the_first_iteration() -> None:
    head = "0 / 200 iterations (0.0%)"
    assert status_line(TrainingState(), 200, 12.3) == f"{head} | starting the workers, 12 s so far"
    begun = TrainingState(starts=[0])
    assert status_line(begun, 200, 12.3) == f"{head} | the workers are at their first iterations, 12 s so far"
    state = TrainingState(iteration=120, loss=1.5, learning_rate=1e-3, first=(100.0, 20), last=150.0, miou=0.25)
    expected = "120 / 200 iterations (60.0%) | 2.00 iterations/s | loss 1.500 | lr 1.00e-03 | mIoU 0.250 | 0:00:40 left"
    assert status_line(state, 200, 99.0) == expected


def test_a_speed_leaves_out_what_came_before_a_death() -> None:
    monitor = TrainingMonitor()
    assert monitor.begin_training(0) is None
    for iteration in (1, 2):
        monitor.report_iteration(iteration=iteration, loss=1.0, learning_rate=0.1, miou=None)
    monitor.begin_training(1)
    state = monitor.state()
    assert (state.starts, state.iteration, state.rate) == ([0, 1], 1, 0.0)


def test_a_validation_stands_until_the_next() -> None:
    monitor = TrainingMonitor()
    monitor.begin_training(0)
    monitor.report_iteration(iteration=1, loss=1.0, learning_rate=0.1, miou=0.5)
    monitor.report_iteration(iteration=2, loss=1.0, learning_rate=0.1, miou=None)
    assert monitor.state().miou == 0.5


def test_the_reason_of_the_worker_that_knows_counts() -> None:
    monitor = TrainingMonitor()
    monitor.report_problem("the sum is inf", certain=False)
    monitor.report_problem("image-7", certain=True)
    monitor.report_problem("image-8", certain=True)
    monitor.report_problem("the sum is inf", certain=False)
    assert monitor.state().problem == "image-7"
    assert monitor.begin_training(3) == "image-7"
    assert monitor.state().starts == []


def test_images_that_could_not_be_used_are_counted_once() -> None:
    monitor = TrainingMonitor()
    monitor.report_unusable(["a: truncated: early", "b: no label"])
    monitor.report_unusable(["a: truncated: early"])
    assert monitor.state().unusable == {"a": "truncated: early", "b": "no label"}
    line = status_line(TrainingState(iteration=1, loss=1.0, learning_rate=0.1, first=(0, 1), unusable={"a": ""}), 2, 0)
    assert "| 1 unusable |" in f"{line} |"
