"""`python -m hxmlops_sharing`: serve an API, keep the tokens that open it, verify its receipts."""

import argparse
import sys

from hxmlops_sharing import access_commands, operations_commands
from hxmlops_sharing.access_commands import CommandError
from hxmlops_sharing.tokens import TokensError


def run() -> int:
    """The program `hxmlops-sharing`."""
    return main(sys.argv[1:], program="hxmlops-sharing")


def main(arguments: list[str], program: str = "python -m hxmlops_sharing") -> int:
    options = parser(program, describe="serve" in arguments).parse_args(arguments)
    if options.command == "serve":
        from hxmlops_sharing.serve import serve  # imports the web framework

        return serve()
    try:
        said = options.run(options)
    except (CommandError, TokensError, OSError) as error:
        print(f"hxmlops_sharing: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    if said:
        print(said)
    return 0


def parser(program: str, *, describe: bool) -> argparse.ArgumentParser:
    """The command line. `describe` adds the settings to the help of `serve`: that costs an import."""
    root = argparse.ArgumentParser(prog=program, description="The sharing APIs of HX-MLOps and what belongs to them.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    settings = ""
    if describe:
        from hxmlops_sharing.settings import describe_settings

        settings = "Settings, by environment variables:\n" + describe_settings()
    commands.add_parser(
        "serve",
        help="run an API until SIGTERM",
        description="Run an API until SIGTERM; one JSON object a line is logged on stderr.",
        epilog=settings,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    access_commands.add_commands(commands)
    operations_commands.add_commands(commands)
    return root


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
