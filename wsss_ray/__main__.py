"""`python -m wsss_ray`: the command `wsss-ray`."""

from wsss_ray.cli import main

if __name__ == "__main__":
    main()
