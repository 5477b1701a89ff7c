"""`wsss-ray audit` as a file for `ray job submit`."""

import sys

from wsss_ray.cli import main

if __name__ == "__main__":
    main(["audit", *sys.argv[1:]])
