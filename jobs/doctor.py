"""`wsss-ray doctor` as a file for `ray job submit`."""

import sys

from wsss_ray.cli import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
