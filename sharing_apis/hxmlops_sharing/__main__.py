"""`python -m hxmlops_sharing`: serve an API, or keep the tokens that open it."""

import argparse
import sys
from pathlib import Path

from hxmlops_sharing.tokens import SCOPES, TokensError, create_token, read_tokens, revoke_tokens


def main(arguments: list[str]) -> int:
    options = parser(describe="serve" in arguments).parse_args(arguments)
    if options.command == "serve":
        from hxmlops_sharing.serve import serve  # imports the web framework

        return serve()
    try:
        print({"create": create, "list": list_, "revoke": revoke}[options.action](options))
    except (TokensError, OSError) as error:
        print(f"hxmlops_sharing: {error}", file=sys.stderr)
        return 2
    return 0


def create(options: argparse.Namespace) -> str:
    made = create_token(
        options.tokens,
        options.out,
        client=options.client,
        scopes=options.scope,
        artifacts=options.artifact or ["*"],
        days=options.days,
    )
    return f"{'created' if made else 'kept'}: the token of {options.client} in {options.out}"


def list_(options: argparse.Namespace) -> str:
    lines = [("CLIENT", "SCOPES", "ARTIFACTS", "EXPIRES")]
    lines += [
        (grant.client, ",".join(grant.scopes), ",".join(grant.artifacts), grant.expires_at)
        for grant in read_tokens(options.tokens)
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def revoke(options: argparse.Namespace) -> str:
    return f"revoked: {revoke_tokens(options.tokens, client=options.client)} of {options.client}"


def parser(*, describe: bool) -> argparse.ArgumentParser:
    """The command line. `describe` adds the settings to the help of `serve`: that costs an import."""
    root = argparse.ArgumentParser(prog="python -m hxmlops_sharing", description=__doc__)
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
    token = commands.add_parser("token", help="create, list or revoke tokens")
    actions = token.add_subparsers(dest="action", required=True, metavar="ACTION")
    each = {
        name: actions.add_parser(name, help=help_, description=help_.capitalize())
        for name, help_ in (
            ("create", "make a token for a client, unless --out has a valid one for the same"),
            ("list", "show who has tokens, for what and until when"),
            ("revoke", "take every token from a client; the server notices by itself"),
        )
    }
    for action in each.values():
        action.add_argument("--tokens", type=Path, required=True, help="the server's tokens file (digests only)")
    for action in (each["create"], each["revoke"]):
        action.add_argument("--client", required=True, help="name of the holder, as logs and audit show it")
    create_ = each["create"]
    create_.add_argument("--scope", action="append", choices=SCOPES, required=True, help="may be repeated")
    create_.add_argument("--artifact", action="append", help="names it is for, as a glob; may be repeated; default *")
    create_.add_argument("--days", type=_days, required=True, help="validity")
    create_.add_argument("--out", type=Path, required=True, help="file for the token (0600); it is never printed")
    return root


def _days(text: str) -> int:
    days = int(text)
    if not 1 <= days <= 3650:
        raise argparse.ArgumentTypeError("from 1 to 3650")
    return days


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
