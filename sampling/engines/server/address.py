"""Hold the address of a server and its secrets, and keep these out of every message."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from stepverify.records import InputError

_SECRET = 6  # characters of a value in a query from which on it may be a key
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2


def check_urls(base_url: str | list[str]) -> dict[str, str]:
    """Return the URLs of endpoints by their keys: ``base_url``, or ``base_url[0]`` and so on.

    Raises:
        InputError: no URL, a bad one, or two of the same endpoint.
    """
    if isinstance(base_url, str):
        check_url(base_url)
        return {"base_url": base_url}
    if not base_url:
        raise InputError("base_url: expected the URL of an endpoint or a list of them, got an empty list")
    urls = {f"base_url[{i}]": url for i, url in enumerate(base_url)}
    seen: dict[tuple[Any, ...], str] = {}
    for key, url in urls.items():
        parts = check_url(url, key)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        place = (parts.scheme, parts.hostname, port, parts.path.rstrip("/"), parts.query)
        if (first := seen.setdefault(place, key)) != key:
            raise InputError(f"{key}: is the same endpoint as {first}; name each one once")
    return urls


def check_url(base_url: str, key: str = "base_url") -> SplitResult:
    """Split the URL of an endpoint.

    Args:
        base_url: the URL.
        key: its name in messages.

    Raises:
        InputError: no http or https URL; the message holds neither its user and password nor its query.
    """
    advice = "expected the URL of an endpoint, such as http://localhost:8000/v1"
    try:
        parts = urlsplit(base_url.strip())
        port = parts.port
    except ValueError as error:
        raise InputError(f"{key}: {advice}; {'bad port' if 'ort' in str(error) else 'not a URL'}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InputError(f"{key}: {advice}; got the scheme {parts.scheme!r} and the host {parts.hostname or ''!r}")
    return parts


@dataclass(frozen=True)
class Address:
    """Hold where requests go, and with which headers.

    Attributes:
        shown: the URL as messages show it: without user, password and query.
        headers: sent with every request.
        proxy: URL of the proxy that the environment names for this host (``HTTPS_PROXY``, ``NO_PROXY``), or None.
        advice: where the key comes from, for messages about a refused one.
        key: of the configuration, which the URL stands at.
    """

    shown: str
    headers: Mapping[str, str] = field(repr=False)
    proxy: str | None = field(repr=False)
    advice: str
    key: str
    _query: str = field(repr=False)
    _secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(
        cls, base_url: str, api_key_env: str | None, headers_env: Mapping[str, str], key: str = "base_url"
    ) -> Address:  # fmt: skip
        """Read an address, and its keys from environment variables.

        Raises:
            InputError: a variable that is not set or cannot be sent, or two kinds of authorization.
        """
        parts = check_url(base_url, key)
        headers = {name: _read(f"headers_env.{name}", variable) for name, variable in headers_env.items()}
        for name in headers:
            if not _HEADER_NAME.fullmatch(name):
                raise InputError(f"headers_env: {name!r} is not the name of a header")
        secrets = [*headers.values()]
        advice = "the server wants a key: set api_key_env to the environment variable that holds it"
        if api_key_env:
            secret = _read("api_key_env", api_key_env)
            headers["Authorization"], secrets = f"Bearer {secret}", [*secrets, secret]
            advice = f"check the key in the environment variable {api_key_env}"
        if parts.username is not None or parts.password is not None:
            if "authorization" in map(str.lower, headers):
                raise InputError(f"{key}: holds a user or password beside another key; keep one of them")
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
            # A user without a password is a token.
            secrets += [pair, *((password, parts.password or "") if password else (user, parts.username or ""))]
            advice = f"check the user and password in {key}"
        for _, value in parse_qsl(parts.query):
            secrets += [value, quote(value, safe="")] if len(value) >= _SECRET else []
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else str(parts.hostname)
        place = f"{host}:{parts.port}" if parts.port else host
        proxy = None if proxy_bypass(place) or _is_local(str(parts.hostname)) else getproxies().get(parts.scheme)
        if proxy and (inner := urlsplit(proxy)).password:
            secrets += [inner.password, unquote(inner.password)]
        shown = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
        longest_first = tuple(sorted({s for s in secrets if s}, key=len, reverse=True))
        return cls(shown, headers, proxy, advice, key, f"?{parts.query}" if parts.query else "", longest_first)

    def url(self, path: str) -> str:
        """Return the URL of a path below the endpoint, with its query."""
        return f"{self.shown}{path}{self._query}"

    def scrub(self, text: str) -> str:
        """Replace every secret in a text by ``***``."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _read(key: str, variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise InputError(f"{key}: the environment variable {variable} is not set")
    if not value.isascii() or not value.isprintable():
        raise InputError(f"{key}: the value of the environment variable {variable} cannot be sent in a header")
    return value


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def shortened(text: str, length: int = 200) -> str:
    """Return a text on one line, printable and of limited length."""
    text = " ".join(text[: 8 * length].split())
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= length else f"{text[: length - 1]}…"
