"""The commands that talk to a server, one file each: `add_arguments(parser)` and `run(arguments) -> exit status`."""
