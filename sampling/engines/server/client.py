"""Exchange one request and answer with a server, within limits of time and size."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import msgspec

from sampling.engines.server.address import Address, shortened
from sampling.engines.server.faults import Absent, Fault, Refusal
from stepverify.records import InputError

_CONNECT = 10.0  # seconds
_CHUNK = 1 << 16
_ERROR_BYTES = 1 << 16  # of an answer that reports an error
_REFUSED = (400, 413, 414, 422)
_BUSY = (429, 529)
_AWAY = (502, 503, 504, *range(520, 528))
_TEMPORARY = (408, 409, 425, 500)


class Client:
    """Send JSON to a server and read its answers; one event loop's.

    Args:
        address: where to.
        timeout: seconds from the request to the final byte of the answer.
        connections: largest number at the same time.
    """

    def __init__(self, address: Address, timeout: float, connections: int) -> None:
        self.address, self.timeout = address, timeout
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections), cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "application/json", **address.headers},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT),
        )  # fmt: skip

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        return await self._exchange("GET", path, None, min(self.timeout, 30.0), 1 << 24)

    async def post(self, path: str, body: Mapping[str, Any], max_bytes: int = 1 << 20) -> Any:
        """Return the JSON that answers a body.

        Args:
            path: below the endpoint.
            body: values of JSON.
            max_bytes: size of the longest answer that is read.

        Raises:
            Fault: worth another attempt.
            Refusal: the server refuses this request for good.
            Absent: there is no such path, or no such model.
            InputError: no request to this server can succeed.
        """
        return await self._exchange("POST", path, msgspec.json.encode(body), self.timeout, max_bytes)

    async def _exchange(self, method: str, path: str, data: bytes | None, seconds: float, max_bytes: int) -> Any:
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method, self.address.url(path), data=data, headers=headers, allow_redirects=False,
                    proxy=self.address.proxy,
                ) as response,
            ):  # fmt: skip
                succeeded = 200 <= response.status < 300
                read = await _read(response, max_bytes if succeeded else _ERROR_BYTES, cut=not succeeded)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Fault(f"cannot be reached ({self._told(_cause(error))})", "unreachable") from None
        except TimeoutError:
            raise Fault(f"no complete answer within {seconds:g} seconds") from None
        except (aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
            raise Fault(f"broken answer ({self._told(_cause(error))})", "away") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Fault(f"lost the connection ({self._told(_cause(error))})", "away") from None
        except ValueError as error:  # of the HTTP parser
            raise Fault(f"broken answer ({self._told(str(error))})", "away") from None
        if not succeeded:
            raise self._error(response.status, response.headers, read)
        try:
            return msgspec.json.decode(read)
        except (ValueError, RecursionError):
            raise Fault(f"the answer is no JSON: {self._told(read.decode(errors='replace'), 80)!r}") from None

    def _error(self, status: int, headers: Mapping[str, str], data: bytes) -> Exception:
        code, text = _error_text(data)
        said = f"error {status}" + (f": {self._told(text)}" if text else "")
        where = self.address.shown
        if 300 <= status < 400:
            target = self._told(headers.get("Location", "").partition("?")[0])
            return InputError(f"{where}: redirects to {target}; set base_url to where it leads")
        if status in (401, 403):
            return InputError(f"{where}: {said}; {self.address.advice}")
        if status in (404, 405, 501):
            return Absent(f"{where}: {said}; the URL of an OpenAI-compatible endpoint usually ends in /v1")
        if status == 402 or code == "insufficient_quota":
            return InputError(f"{where}: {said}; the account has no credit left")
        if status in _REFUSED:
            return Refusal(said)
        if status in _BUSY:
            return Fault(said, "busy", retry_after(headers))
        if status in _AWAY:
            return Fault(said, "away", retry_after(headers))
        if status in _TEMPORARY or status >= 500:
            return Fault(said, "bad", retry_after(headers))
        return InputError(f"{where}: {said}")

    def _told(self, text: str, length: int = 200) -> str:
        return shortened(self.address.scrub(text), length)


async def _read(response: aiohttp.ClientResponse, most: int, *, cut: bool) -> bytes:
    read = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        read += chunk
        if len(read) > most:
            response.close()
            if cut:
                break
            raise Fault(f"the answer is longer than {most:,} bytes")
    return bytes(read[:most])


def _cause(error: BaseException) -> str:
    inner = getattr(error, "os_error", error)
    if isinstance(inner, OSError) and inner.errno is not None and inner.errno > 0:
        return os.strerror(inner.errno)  # asyncio's own text names the call
    return getattr(inner, "strerror", None) or str(inner) or type(error).__name__


def _error_text(data: bytes) -> tuple[str, str]:
    """Return code and message of an error: OpenAI's JSON, FastAPI's, or text."""
    text = data.decode(errors="replace")
    try:
        told = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        return "", text
    error = told.get("error", told) if isinstance(told, dict) else told
    if not isinstance(error, dict):
        return "", str(error)
    message = error.get("message") or error.get("detail") or error
    return str(error.get("code")), message if isinstance(message, str) else msgspec.json.encode(message).decode()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, given as a number or a date; None without a readable one.

    A date is compared with the server's own clock, the header Date, where there is one.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return min(float(value[:20]), 1e9)
    try:
        until = parsedate_to_datetime(value).timestamp()
        now = parsedate_to_datetime(headers["Date"]).timestamp() if "Date" in headers else time.time()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return max(0.0, until - now)
