"""`wsss-ray export` as a file for `ray job submit`."""

import sys

from wsss_ray.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
