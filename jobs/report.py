"""`wsss-ray report` as a file for `ray job submit`."""

import sys

from wsss_ray.cli import main

if __name__ == "__main__":
    main(["report", *sys.argv[1:]])
