"""`python -m capfilt` is `capfilt`."""

from capfilt.cli.app import main

if __name__ == "__main__":
    main()
