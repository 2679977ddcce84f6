# Copyright: HX-MLOps contributors
# Apache License 2.0 (see LICENSE)
"""The commands: `init`, `check`, `component`, `link`, `stage`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from hxMLOps import __version__, asking, catalogue, results, screen
from hxMLOps.catalogue import CATALOGUE, HELP, Module
from hxMLOps.config import (
    ALL,
    DEFAULT_PATH,
    Config,
    default_of,
    inventory,
    kubeconfig_of,
    path_of,
    read,
    same,
    with_default,
    write,
)
from hxMLOps.mistakes import FAILED, INTERRUPTED, Mistake, nearest
from hxMLOps.play import Play, run, short

PROGRAM = "python -m hxMLOps"
EPILOG = (
    "Exit codes: 0 done; 1 something failed in a domain; 2 the command line is wrong; 3 the configuration or the "
    "kubeconfig is missing or wrong, or `check connection` found a domain that cannot be used; 130 interrupted."
)

app = typer.Typer(
    help="HX-MLOps from the command line: domains, and the modules in them. Thin over Ansible: `--show` prints the "
    "line of ansible-playbook that does the same.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
init = typer.Typer(help="Say which domains there are: contexts of your kubeconfig.", no_args_is_help=True)
check = typer.Typer(help="Look whether domains can be used.", no_args_is_help=True)
app.add_typer(init, name="init")
app.add_typer(check, name="check")

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", envvar="HXMLOPS_CONFIG", help=f"Inventory with your domains; {DEFAULT_PATH} by default."),
]
Domains = Annotated[
    list[str] | None,
    typer.Option(
        "--domain", "-d", help="Domain it is for, may be given again; `all` for all. Else the default domain."
    ),
]
Show = Annotated[bool, typer.Option("--show", help="Run nothing: print the ansible-playbook line that does the same.")]
Check = Annotated[bool, typer.Option("--check", help="Change nothing: say what would be done.")]
Recover = Annotated[bool, typer.Option("--recover", help="Go on where a release failed or was left half done before.")]


def main(arguments: list[str] | None = None) -> int:
    """Run a command; its exit code. Mistakes of the user's are told in one line."""
    try:
        return int(app(args=arguments, prog_name=PROGRAM, standalone_mode=False) or 0)
    except Mistake as mistake:
        screen.error(str(mistake))
        return mistake.exit_code
    except typer.TyperException as mistake:
        context, text = getattr(mistake, "ctx", None), mistake.format_message().rstrip(".")
        if text:  # none: a command without its subcommand, and its help is on the screen
            where = context.command_path if context is not None else PROGRAM
            screen.error(f"{text}{'' if text.endswith('?') else '.'} See {where} --help")
        return mistake.exit_code
    except typer.Abort:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `... | head`
        sys.stderr.close()
        return FAILED


def _version(wanted: bool) -> None:
    if wanted:
        print(f"hxMLOps {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _ = version


# -- init ------------------------------------------------------------------------------------------------------------


@init.command("new_config")
def new_config(
    domain: Annotated[
        list[str] | None,
        typer.Option(
            "--domain",
            "-d",
            help="A domain, instead of being asked; give it again for each: "
            "NAME,location=ES[,context=...][,kind=...][,party=...][,namespace=...].",
        ),
    ] = None,
    default: Annotated[str | None, typer.Option("--default", help="The default domain.")] = None,
    kubeconfig: Annotated[
        str | None, typer.Option("--kubeconfig", help="Kubeconfig, or several joined by `:`; KUBECONFIG by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the configuration that is there.")] = False,
    config: ConfigPath = None,
) -> None:
    """Make the configuration: which contexts of the kubeconfig are domains. Asks on a terminal."""
    path, files = path_of(config), kubeconfig_of(kubeconfig)
    if not domain and asking.on_terminal() and path.exists() and not force:
        asking.may_replace(path)
        force = True
    domains = asking.new_domains(files, domain or [])
    names = [each.name for each in domains]
    if default is None and len(names) > 1 and not domain:
        default = asking.one_of("Default domain (Enter: none)", names, optional=True)
    if default and default not in names:
        raise Mistake(f"--default {default} is none of the domains: {nearest(default, names)}")
    if default is None and (before := default_of(path)) in names:
        default = before
    text = inventory(path, files, domains, default or None)
    if same(path, text):
        print(f"Unchanged: {path}")
    else:
        if path.exists() and not force:
            asking.may_replace(path)
        write(path, text)
        print(f"Wrote {path}")
    _print(read(path))
    print(f"\nNext: {PROGRAM} check connection")


@init.command("set_default_domain")
def set_default_domain(
    domain: Annotated[str | None, typer.Argument(help="The domain; asked for on a terminal.")] = None,
    config: ConfigPath = None,
) -> None:
    """Choose the domain that commands are for when no --domain is given."""
    found = read(config)
    domain = domain or asking.one_of("Default domain", list(found.domains), option="DOMAIN")
    if domain not in found.domains:
        raise Mistake(f"there is no domain {domain} in {found.path}: {nearest(domain, found.domains)}")
    if found.default == domain:
        print(f"Unchanged: the default domain is {domain}")
        return
    if not found.path.is_file():
        raise Mistake(f"{found.path} is not one file: set hxmlops_default_domain in its variables by hand")
    write(found.path, with_default(found.path.read_text(encoding="utf-8"), domain))
    print(f"The default domain is {domain}")


@init.command("show_config")
def show_config(config: ConfigPath = None) -> None:
    """Show the configuration."""
    found = read(config)
    print(found.path)
    _print(found)


def _print(config: Config) -> None:
    columns = ["domain", "kind", "party", "location", "context", "namespace", "kubeconfig", ""]
    names = ["party", "location", "context", "namespace", "kubeconfig"]
    rows = [
        [
            each.name,
            each.kind,
            *(str(each.variables.get(f"hxmlops_{name}", "")) for name in names),
            "default" if each.name == config.default else "",
        ]
        for each in config.domains.values()
    ]
    screen.table(columns, rows)


# -- check -----------------------------------------------------------------------------------------------------------


@check.command("connection")
def connection(domain: Domains = None, show: Show = False, config: ConfigPath = None) -> None:
    """Look whether each domain can be reached and used: rights, namespace, helm. All domains by default."""
    found = read(config)
    play = Play("check", found.path, found.chosen(domain or [ALL]))
    _run(play, found, show, results.connection)


# -- component, link, stage ------------------------------------------------------------------------------------------

Name = Annotated[str, typer.Argument(metavar="MODULE", show_default=False)]


def create(
    context: typer.Context,
    module: Name,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Values of its chart that differ; see info.")
    ] = None,
    domain: Domains = None,
    check: Check = False,
    recover: Recover = False,
    show: Show = False,
    config: ConfigPath = None,
) -> None:
    """Install it, or bring it to the values given."""
    variables = {"hxmlops_values_file": str(_readable(file))} if file else {}
    variables |= {"hxmlops_recover": "true"} if recover else {}
    _act(_module(context, module), "create", read(config), domain, show, _changes(check), variables, check)


def _changes(check: bool) -> results.Tell:
    return results.foreseen if check else results.changes


def delete(
    context: typer.Context,
    module: Name,
    domain: Domains = None,
    delete_data: Annotated[bool, typer.Option("--delete-data", help="Delete its data and its Secrets too.")] = False,
    check: Check = False,
    show: Show = False,
    config: ConfigPath = None,
) -> None:
    """Delete it; its data stays unless told."""
    variables = {"hxmlops_delete_data": "true"} if delete_data else {}
    _act(_module(context, module), "delete", read(config), domain, show, _changes(check), variables, check)


def info(
    context: typer.Context, module: Name, domain: Domains = None, show: Show = False, config: ConfigPath = None
) -> None:
    """Say what it is, and print its values: a file to fill in."""
    _act(_module(context, module), "info", read(config), domain, show, results.info)


def status(
    context: typer.Context, module: Name, domain: Domains = None, show: Show = False, config: ConfigPath = None
) -> None:
    """Say how it is, and why if it is not ready."""
    _act(_module(context, module), "status", read(config), domain, show, results.status)


def list_values(
    context: typer.Context,
    group: Annotated[str | None, typer.Argument(help="A group.", show_default=False)] = None,
    module: Annotated[str | None, typer.Argument(help="A module: print its values.", show_default=False)] = None,
) -> None:
    """List the files with the values of each module; print one module's, a file to fill in."""
    kind = _words(context)[-2]
    if group and module:
        print(catalogue.find(kind, group, module).values.read_text(encoding="utf-8"), end="")
        return
    if group:
        catalogue.check_group(kind, group)
    rows = [[each.group, each.name, short(each.values)] for each in catalogue.modules(kind, group)]
    screen.table(["group", "module", "values"], rows)


def stage_info(context: typer.Context, module: Name) -> None:
    """Say what it does and takes, and which playbook runs it."""
    stage = _module(context, module)
    print(stage.readme.read_text(encoding="utf-8"))
    print(_how_to_run(stage))


def stage_only_runs(context: typer.Context, module: Name) -> None:
    """Say which playbook runs it: a stage is a step of a workflow, and nothing of it stays in a domain."""
    raise Mistake(_how_to_run(_module(context, module)))


def _how_to_run(stage: Module) -> str:
    return (
        f"{stage.name} is a step of a workflow, not a release that stays: "
        f"playbooks/{catalogue.PLAYBOOK_OF_STAGE[stage.name]}.yml runs it with -e hxmlops_workflow=FILE, and "
        "playbooks/energy_report.yml says how it went (see docs/running.md)"
    )


def _words(context: typer.Context) -> list[str]:
    """The words of the command line that lead to a command: kind, group, action."""
    return context.command_path.split()[-3:]


def _module(context: typer.Context, word: str) -> Module:
    kind, group, _ = _words(context)
    return catalogue.find(kind, group, word)


def _readable(path: Path) -> Path:
    """A values file, absolute. Raises Mistake when it cannot be read."""
    try:
        path.open(encoding="utf-8").close()
    except OSError as error:
        raise Mistake(f"--file {path}: {error.strerror}") from None
    return path.absolute()


def _act(
    module: Module,
    action: str,
    config: Config,
    domains: list[str] | None,
    show: bool,
    tell: results.Tell,
    variables: Mapping[str, str] | None = None,
    check: bool = False,
) -> None:
    """One action on a module by playbooks/module.yml."""
    names = {"hxmlops_module": module.role, "hxmlops_action": action, **(variables or {})}
    _run(Play("module", config.path, config.chosen(domains or []), names, check), config, show, tell)


def _run(play: Play, config: Config, show: bool, tell: results.Tell) -> None:
    """Run a play, or print its line; `tell` prints the outcome and answers the exit code."""
    if show:
        print(play.line())
        return
    domains = list(play.domains or config.domains)
    with screen.Progress(domains, quiet=tell is results.status).shown() as progress:
        outcome = run(play, progress)
    code = tell(outcome, domains)
    if outcome.interrupted:
        screen.error("interrupted; run it again to go on")
        code = INTERRUPTED
    raise typer.Exit(code)


COMMANDS: dict[str, Callable[..., None]] = {"create": create, "delete": delete, "info": info, "status": status}
STAGE_COMMANDS: dict[str, Callable[..., None]] = {**dict.fromkeys(COMMANDS, stage_only_runs), "info": stage_info}

for _kind, _groups in CATALOGUE.items():
    _of_kind = typer.Typer(help=HELP[_kind], no_args_is_help=True)
    for _group in _groups:
        _names = ", ".join(_groups[_group])
        _of_group = typer.Typer(help=f"{HELP[_group]} Modules: {_names}.", no_args_is_help=True)
        for _action, _function in (STAGE_COMMANDS if _kind == "stage" else COMMANDS).items():
            # a stage takes no options: whatever is given, the answer is the same
            _more = {"ignore_unknown_options": True, "allow_extra_args": True} if _kind == "stage" else {}
            _of_group.command(_action, epilog=f"Modules: {_names}.", context_settings=_more)(_function)
        _of_kind.add_typer(_of_group, name=_group)
    if _kind != "stage":
        _of_kind.command("list-values")(list_values)
    app.add_typer(_of_kind, name=_kind)
