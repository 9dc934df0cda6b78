"""`python -m enet_tvm`: the command line, also for launchers that take a module."""

from enet_tvm.cli.main import main

if __name__ == "__main__":
    main()
