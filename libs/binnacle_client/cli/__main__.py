"""`python -m binnacle_client.cli`: the `binnacle` command where its script is not on the path."""

from binnacle_client.cli.main import main

if __name__ == "__main__":
    main()
