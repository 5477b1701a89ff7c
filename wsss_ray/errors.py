"""How a job ends when its input was right but its goal was not reached."""


class JobError(RuntimeError):
    """A job that ended without reaching its goal; the text says what happened, what stands and what to do."""


class Terminated(BaseException):
    """SIGTERM, as `ray job stop` and schedulers send it."""
