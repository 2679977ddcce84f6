"""The catalogue page for people, on the API's own server: HTML made here, one style sheet, no script.

A person signs in with a bearer token, which a cookie keeps (sessions.py). The cookie counts below `/catalogue` only:
the API does not know it. Names stand in queries and identifiers in paths, as names may be anything.
"""

import hashlib
import http
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, urlencode, urlsplit

import structlog
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, StreamingResponse

from hxmlops_evidence.digests import canonical
from hxmlops_sharing import audit, problems
from hxmlops_sharing import catalogue_data as data
from hxmlops_sharing import catalogue_views as views
from hxmlops_sharing.access import Caller
from hxmlops_sharing.downloads import attachment
from hxmlops_sharing.problems import Problem
from hxmlops_sharing.records import STATUSES
from hxmlops_sharing.service import Identifier, Service, ServiceHere, admit, noted
from hxmlops_sharing.sessions import LASTS_S, MAX_TOKEN, Sessions, sessions_of
from hxmlops_sharing.tokens import TokensError

FOLDER = Path(__file__).parent
ROOT = "/catalogue"
MAX_FORM = 64 << 10
VERIFIED_BY_ITSELF = 2_000
"""Lines of the audit up to which its page verifies the chain unasked."""
DATA_TYPES = ("production", "synthetic", "mixed")
ACTIONS = (
    "grant", "revoke", "upload", "change", "delete", "restore", "collect", "alias", "read", "read-audit", "catalogue",
    "refused", "download", "delivered", "tus-create", "tus-delete", "login", "logout",
)  # fmt: skip

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = structlog.get_logger("hxmlops_sharing")


def _static() -> dict[str, tuple[bytes, str]]:
    """The static files by name; the style sheet's has its digest, so that browsers may keep it."""
    style, icon = ((FOLDER / "static" / name).read_bytes() for name in ("page.css", "icon.svg"))
    named = f"page-{hashlib.sha256(style).hexdigest()[:12]}.css"
    return {named: (style, "text/css; charset=utf-8"), "icon.svg": (icon, "image/svg+xml")}


STATIC = _static()
CSS = next(iter(STATIC))

templates = Environment(
    autoescape=True,
    loader=FileSystemLoader(FOLDER / "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
templates.filters |= {
    "bytes": data.size_of,
    "criteria": views.criteria_of,
    "expiry": views.expiry,
    "members": lambda detail: views.rows_of(detail)[0],
    "size": views.size_text,
    "state": lambda row: row.status if "status" in row._mapping else row.data_type,
    "time": views.time_tag,
}


@dataclass(frozen=True)
class Visit:
    """A request for a page. `caller` is None for who has not signed in."""

    request: Request
    service: Service
    sessions: Sessions
    cookie: str
    caller: Caller | None

    @property
    def base(self) -> str:
        return base_of(self.request)

    @property
    def person(self) -> Caller:
        """The caller, on pages for those who have signed in."""
        if self.caller is None:
            raise Problem(401, "unauthorized", "sign in first")
        return self.caller

    @property
    def is_admin(self) -> bool:
        return self.caller is not None and self.caller.may("admin")

    def note(self, action: str, **about: str | int | None) -> None:
        noted(self.service, self.person, action, self.request.state.request_id, **about)

    def form_token(self) -> str:
        return self.sessions.form_token(self.cookie or "none")

    def page(self, template: str, here: str = "", status: int = 200, **values: Any) -> HTMLResponse:
        return _page(self.request, template, here, status, **values)


def base_of(request: Request) -> str:
    """Path of the catalogue as browsers know it."""
    service: Service = request.app.state.service
    return f"{service.settings.path_prefix or request.scope.get('root_path', '')}{ROOT}"


def _page(request: Request, template: str, here: str = "", status: int = 200, **values: Any) -> HTMLResponse:
    service: Service = request.app.state.service
    visit: Visit | None = getattr(request.state, "visit", None)
    html = templates.get_template(f"{template}.html.j2").render(
        {
            "admin": visit is not None and visit.is_admin,
            "auth_off": service.settings.auth == "none",
            "base": base_of(request),
            "css": CSS,
            "form_token": visit.form_token() if visit else "",
            "grace_days": service.settings.grace_days,
            "here": here,
            "kind": service.registry.kind.word,
            "person": visit.caller if visit else None,
            "request_id": request.state.request_id,
            **values,
        }
    )
    return HTMLResponse(html, status)


class PageRoute(APIRoute):
    """A route whose every answer has the page's headers, and whose errors are pages."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        methods = self.methods or set()
        self.methods = methods | {"HEAD"} if "GET" in methods else methods

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                answer = await handle(request)
            except RequestValidationError:
                answer = _error(request, Problem(404, "not-found", "there is no such page"))
            except HTTPException as error:
                answer = _error(request, error)
            except ClientDisconnect:
                raise
            except Exception as error:
                problem = problems.of_exception(error)
                if problem.status_code == 500:
                    log.error("unexpected_error", request_id=request.state.request_id, exc_info=True)
                answer = _error(request, problem)
            for name, value in HEADERS.items():
                answer.headers.setdefault(name, value)
            return answer

        return answered


def _error(request: Request, error: HTTPException) -> Response:
    if error.status_code == 303:
        return Response(status_code=303, headers=error.headers)
    status = http.HTTPStatus(error.status_code)
    values: dict[str, Any] = {"code": status.value, "phrase": status.phrase, "detail": _sentence(error)}
    answer = _page(request, "error", status=status.value, **values)
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


def _sentence(error: HTTPException) -> str:
    return f"{error.detail[:1].upper()}{error.detail[1:]}."


router = APIRouter(route_class=PageRoute, include_in_schema=False)


async def visit(request: Request, service: ServiceHere) -> Visit:
    """Dependency: who visits. A session whose token is no longer good is none."""
    sessions = await sessions_of(service.database)
    cookie = request.cookies.get(sessions.cookie, "")
    caller = None
    token = sessions.open(cookie) if cookie else None
    if token is not None or service.settings.auth == "none":
        try:
            caller = await admit(request, service, token, "read")
        except Problem as problem:
            if problem.status_code != 401:
                raise
    request.state.visit = here = Visit(request, service, sessions, cookie, caller)
    return here


Anyone = Annotated[Visit, Depends(visit)]


async def person(visit: Anyone) -> Visit:
    """Dependency: someone who has signed in; others are asked to."""
    if visit.caller is None:
        url = visit.request.url
        wanted = visit.base + url.path.partition(ROOT)[2] + (f"?{url.query}" if url.query else "")
        query = f"?{urlencode({'next': wanted})}" if wanted != visit.base and visit.request.method == "GET" else ""
        raise HTTPException(303, headers={"Location": f"{visit.base}/login{query}"})
    return visit


Person = Annotated[Visit, Depends(person)]


async def admin(visit: Person) -> Visit:
    """Dependency: an admin."""
    if not visit.is_admin:
        raise Problem(403, "forbidden", f"this page is for admins: the token of {visit.person.client} lacks that scope")
    return visit


AdminHere = Annotated[Visit, Depends(admin)]


async def form(request: Request, visit: Anyone) -> Mapping[str, str]:
    """Dependency: a form that one of our pages sent. Problem 403 for any other, 413, 415 or 422 for what is none."""
    if not _is_from_here(request):
        raise Problem(403, "forbidden", "the form was sent by another site")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Problem(415, "unsupported-media-type", "the body should be a form")
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > MAX_FORM:
            raise Problem(413, "too-large", "the form is too large")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=10)
    except ValueError:
        raise Problem(422, "invalid", "the body should be a form") from None
    values = {name: value[0] for name, value in fields.items()}
    bound_to = visit.cookie or request.cookies.get(visit.sessions.form_cookie, "")
    if visit.service.settings.auth == "none":
        bound_to = bound_to or "none"
    if not visit.sessions.is_form_token(bound_to, values.get("form_token", "")):
        raise Problem(403, "forbidden", "the form is not of this session: go back, load the page again and repeat it")
    return values


Form = Annotated[Mapping[str, str], Depends(form)]


def _is_from_here(request: Request) -> bool:
    """Whether a browser sent the form from a page of ours, as far as it says so; the form's token has the last word.

    Browsers tell `Sec-Fetch-Site` over TLS and on loopback. `Origin` is null for pages without a referrer, as ours.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "null")
    return origin == "null" or origin.partition("://")[2] == request.headers.get("host")


@router.get("/")
async def root(request: Request) -> Response:
    return RedirectResponse(base_of(request), 307)


@router.get(f"{ROOT}/static/{{name}}")
async def static(name: str) -> Response:
    if name not in STATIC:
        raise Problem(404, "not-found", "there is no such file")
    content, media_type = STATIC[name]
    keep = "public, max-age=31536000, immutable" if name == CSS else "public, max-age=3600"
    return Response(content, media_type=media_type, headers={"Cache-Control": keep})


@router.get(f"{ROOT}/login")
async def login_page(visit: Anyone, next: str = "") -> Response:
    if visit.caller is not None:
        return RedirectResponse(_safe(next, visit.base), 303)
    return _login(visit, next)


def _login(visit: Visit, wanted: str, problem: str = "", status: int = 200) -> Response:
    bound_to = visit.cookie or visit.request.cookies.get(visit.sessions.form_cookie, "") or secrets.token_urlsafe(16)
    answer = _page(
        visit.request, "login", "", status, problem=problem, next=_safe(wanted, visit.base),
        form_token=visit.sessions.form_token(bound_to),
        from_elsewhere=visit.request.headers.get("sec-fetch-site") == "cross-site",
    )  # fmt: skip
    if not visit.cookie:
        _set_cookie(answer, visit, visit.sessions.form_cookie, bound_to)
    return answer


@router.post(f"{ROOT}/login")
async def login(visit: Anyone, values: Form) -> Response:
    token, wanted = values.get("token", "").strip(), values.get("next", "")
    if len(token) > MAX_TOKEN:
        problem = f"A token of more than {MAX_TOKEN:,} characters does not fit: ask for one with fewer claims."
        return _login(visit, wanted, problem, 422)
    try:
        caller = await admit(visit.request, visit.service, token, "read")
    except Problem as refusal:
        if refusal.status_code not in (401, 403):
            raise
        return _login(visit, wanted, _sentence(refusal), refusal.status_code)
    request_id = visit.request.state.request_id
    await visit.service.audit.write(audit.Line("login", caller.client, request_id=request_id))
    answer = RedirectResponse(_safe(wanted, visit.base), 303)
    _set_cookie(answer, visit, visit.sessions.cookie, visit.sessions.seal(token), LASTS_S)
    answer.delete_cookie(visit.sessions.form_cookie, path=visit.base)
    return answer


@router.post(f"{ROOT}/logout")
async def logout(visit: Anyone, values: Form) -> Response:  # noqa: ARG001 (the form was checked)
    if visit.caller is not None:
        line = audit.Line("logout", visit.caller.client, request_id=visit.request.state.request_id)
        await visit.service.audit.write(line)
    answer = RedirectResponse(f"{visit.base}/login", 303)
    answer.delete_cookie(visit.sessions.cookie, path=visit.base)
    return answer


def _set_cookie(answer: Response, visit: Visit, name: str, value: str, seconds: int | None = None) -> None:
    request = visit.request
    by_tls = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", ""))
    answer.set_cookie(name, value, seconds, path=visit.base, secure=by_tls, httponly=True, samesite="strict")


def _safe(wanted: str, base: str) -> str:
    """A path below the catalogue to go to; the catalogue itself for any other."""
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return base
    inside = parts.path == base or parts.path.startswith(f"{base}/")
    plain = all(character.isprintable() and character not in "\\ " for character in wanted) and ".." not in wanted
    return wanted if inside and plain and not parts.scheme and not parts.netloc else base


Words = Annotated[str, Query(max_length=1000)]


@router.get(ROOT)
async def artifacts(
    visit: Person, name: Words = "", tag: Words = "", state: Words = "", domain: Words = "", after: Words = ""
) -> Response:
    kind = visit.service.registry.kind
    filters = data.Filters(name.strip(), tag.strip(), state, domain.strip())
    async with visit.service.database.read() as connection:
        page = await data.artifacts(connection, kind, filters, visit.person, after)
    visit.note("catalogue", name=name or None)
    query = {key: value for key, value in vars(filters).items() if value}
    return visit.page(
        "artifacts", "artifacts", page=page, filters=filters, continued=bool(after),
        states=STATUSES if kind.word == "model" else DATA_TYPES,
        **_pages(visit.base, query, "after", page.items[-1].name if page.more else None, bool(after)),
    )  # fmt: skip


@router.get(f"{ROOT}/artifact")
async def artifact(
    visit: Person, name: Words, after: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None
) -> Response:
    kind = visit.service.registry.kind
    missing = Problem(404, "not-found", f"there is no {kind.word} of this name that you may see")
    if not visit.person.sees(name):
        raise missing
    async with visit.service.database.read() as connection:
        page = await data.versions(connection, kind, name, with_deleted=visit.is_admin, after=after)
        if not page.items and after is None:
            raise missing
        latest = await data.latest(connection, kind, name)
        aliases = await data.aliases_of(connection, kind, name)
    visit.note("catalogue", name=name)
    last = page.items[-1].id if page.more else None
    return visit.page(
        "artifact", "artifacts", name=name, page=page, latest=latest, aliases=aliases, continued=after is not None,
        **_pages(f"{visit.base}/artifact", {"name": name}, "after", last, after is not None),
    )  # fmt: skip


@router.get(f"{ROOT}/version/{{identifier}}")
async def version(visit: Person, identifier: Identifier) -> Response:
    kind = visit.service.registry.kind
    async with visit.service.database.read() as connection:
        row = await data.version(connection, kind, identifier, with_deleted=visit.is_admin)
        if row is None or not visit.person.sees(row.name):
            raise Problem(404, "not-found", f"there is no {kind.word} {identifier} that you may see")
        named = {name: row._mapping[name] for name in ("parameters", "characteristics") if name in row._mapping}
        summaries, rest = views.summaries(named)
        links = [link for summary in summaries for link in summary.links]
        holders = await data.holders(connection, kind, [row.sha256, *(link.digest for link in links)], visit.person)
        latest = await data.latest(connection, kind, row.name)
        aliases = await data.aliases_of(connection, kind, row.name)
    visit.note("read", identifier=row.id, name=row.name, version=row.version)
    findings = {name: value for name, value in (row.verified or {}).items() if name != "criteria"}
    return visit.page(
        "version", "artifacts", row=row, latest=latest, aliases=aliases, summaries=summaries,
        objects={title: _rows(value) for title, value in rest.items()}, found=_rows(findings),
        verified=views.criteria_of(row.verified), lineage=_lineage(links, holders),
        twins=[other for other in holders.get(row.sha256, []) if other.id != row.id],
    )  # fmt: skip


def _rows(value: Mapping[str, Any]) -> dict[str, Any]:
    return dict(zip(("rows", "more"), views.rows_of(value), strict=True))


def _lineage(links: list[views.Link], holders: Mapping[str, list[Any]]) -> list[dict[str, Any]]:
    """Each digest once, with all that it is called."""
    labels: dict[str, list[str]] = {}
    for link in links:
        called = labels.setdefault(link.digest, [])
        if link.label not in called:
            called.append(link.label)
    return [
        {"label": ", ".join(called), "digest": digest, "here": holders.get(digest, [])}
        for digest, called in labels.items()
    ]


@router.get(f"{ROOT}/version/{{identifier}}/bytes")
async def download(visit: Person, identifier: Identifier) -> Response:
    """The bytes, as the API answers and audits them."""
    service = visit.service
    row = await service.registry.find(identifier, None, visit.person)
    if service.registry.kind.word == "model":
        from hxmlops_sharing.model_api import answer_model

        answer = await answer_model(visit.request, service, visit.person, row)
        answer.headers["Content-Disposition"] = attachment(f"{row.name}_{row.version}{_suffix(row)}")
    else:
        from hxmlops_sharing.dataset_api import answer_dataset

        answer = await answer_dataset(visit.request, service, visit.person, row)
    answer.headers["Cache-Control"] = "no-store, no-transform"
    return answer


def _suffix(row: Any) -> str:
    """`.tar` for what has come with signed evidence, which is about a tar; the API knows no file names."""
    return ".tar" if any(one.type == "evidence" for one in views.summaries({"": row.characteristics})[0]) else ""


@router.get(f"{ROOT}/version/{{identifier}}/record")
async def record(visit: Person, identifier: Identifier) -> Response:
    row = await visit.service.registry.find(identifier, None, visit.person)
    visit.note("read", identifier=row.id, name=row.name, version=row.version)
    name = attachment(f"{row.name}_{row.version}.json")
    return JSONResponse(visit.service.registry.kind.record(row), headers={"Content-Disposition": name})


@router.get(f"{ROOT}/tokens")
async def tokens(visit: AdminHere) -> Response:
    service = visit.service
    try:
        grants = service.tokens.grants() if service.tokens else []
    except TokensError as error:
        log.error("tokens_file", reason=str(error))
        raise Problem(503, "tokens-unreadable", "the server cannot read its tokens: tell its owner") from None
    return visit.page(
        "tokens", "tokens", grants=sorted(grants, key=lambda grant: (grant.expires, grant.client)),
        tokens_file=service.tokens is not None, oidc_issuer=service.settings.oidc_issuer,
    )  # fmt: skip


@router.get(f"{ROOT}/audit")
async def audit_page(
    visit: AdminHere,
    client: Words = "",
    action: Words = "",
    name: Words = "",
    version: Words = "",
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
) -> Response:
    return await _audit(visit, data.AuditFilters(client.strip(), action, name.strip(), version.strip()), before)


@router.post(f"{ROOT}/audit/verify")
async def verify_audit(visit: AdminHere, values: Form) -> Response:  # noqa: ARG001 (the form was checked)
    return await _audit(visit, data.AuditFilters(), None, verify=True)


async def _audit(visit: Visit, filters: data.AuditFilters, before: int | None, *, verify: bool = False) -> Response:
    async with visit.service.database.read(snapshot=True) as connection:
        page = await data.audit_lines(connection, filters, before)
        head = await audit.head(connection)
        verdict = await audit.verify(connection) if verify or head.id <= VERIFIED_BY_ITSELF else None
    visit.note("read-audit")
    query = {key: value for key, value in vars(filters).items() if value}
    return visit.page(
        "audit", "audit", page=page, filters=filters, actions=ACTIONS, head=head, verdict=verdict,
        continued=before is not None,
        **_pages(f"{visit.base}/audit", query, "before", page.items[-1].id if page.more else None, before is not None),
    )  # fmt: skip


@router.get(f"{ROOT}/audit/export")
async def export_audit(visit: AdminHere) -> Response:
    """Every line as it is stored, a JSON object each, oldest first."""
    visit.note("read-audit")

    async def lines() -> AsyncIterator[bytes]:
        async with visit.service.database.read(snapshot=True) as connection:
            batch: list[bytes] = []
            async for row in audit.entries(connection):
                batch.append(canonical(dict(row)) + b"\n")
                if len(batch) == 500:
                    yield b"".join(batch)
                    batch = []
            yield b"".join(batch)

    name = f"audit-{time.strftime('%Y-%m-%d', time.gmtime())}.jsonl"
    return StreamingResponse(lines(), media_type="application/jsonl", headers={"Content-Disposition": attachment(name)})


@router.get(f"{ROOT}/storage")
async def storage(visit: AdminHere) -> Response:
    service = visit.service
    async with service.database.read() as connection:
        kept = await data.storage(connection, service.registry.kind)
    return visit.page(
        "storage", "storage", storage=kept,
        database="PostgreSQL" if service.settings.on_postgresql else "SQLite",
        store="S3" if service.settings.on_s3 else "a folder",
    )  # fmt: skip


@router.get(f"{ROOT}/{{rest:path}}")
async def no_page(rest: str) -> Response:  # noqa: ARG001
    raise Problem(404, "not-found", "there is no such page")


def _pages(path: str, query: Mapping[str, str], cursor: str, last: Any, continued: bool) -> dict[str, Any]:
    """Where the first and the next page of a list are; "" for where one is already, or where there is none."""
    here = f"{path}?{urlencode(query)}" if query else path
    following = f"{path}?{urlencode({**query, cursor: last})}" if last is not None else ""
    return {"first": here if continued else "", "next": following}
