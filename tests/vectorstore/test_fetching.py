"""Documents by URL: what is fetched, and that nothing on this side of the internet can be reached by it."""

import asyncio
import gzip
import ipaddress
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kernel.errors import TooLarge
from tests.vectorstore.web_server import NAME, WebServer, certificate, dripping
from vectorstore.errors import FetchFailed, UrlRefused
from vectorstore.fetching import Fetched, fetch
from vectorstore.web_addresses import address_of, public

TEXT = {"Content-Type": "text/plain; charset=utf-8"}


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture(autouse=True)
def here(web: WebServer, settings: Any) -> None:
    """What a test may ask: its own server, by http, by the one name that the operator allows."""
    change(settings, FETCH_HTTP=True, FETCH_PORTS=[80, 443, web.port], FETCH_ALLOWED_HOSTS=[NAME])


def change(settings: Any, **options: Any) -> None:
    given = settings.DJANGO_CHAIN
    settings.DJANGO_CHAIN = given | {"VECTOR_STORE": given.get("VECTOR_STORE", {}) | options}


async def to_loopback(host: str, port: int) -> list[str]:
    """A name server under somebody else's control: every name is this machine."""
    del port
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        return ["127.0.0.1"]


async def get(web: WebServer, path: str, *, host: str = NAME, max_bytes: int = 10_000, **options: Any) -> Fetched:
    return await fetch(f"http://{host}:{web.port}{path}", max_bytes=max_bytes, **{"resolve": to_loopback, **options})


class TestFetching:
    async def test_a_document_comes_with_its_type_and_a_name(self, web: WebServer) -> None:
        web.pages["/a/guide%20one.md?x=1"] = 200, TEXT, b"# Guide"
        found = await get(web, "/a/guide%20one.md?x=1#part")
        assert found == Fetched(
            data=b"# Guide",
            content_type="text/plain; charset=utf-8",
            name="guide one.md",
            url=f"http://{NAME}:{web.port}/a/guide%20one.md?x=1",
        )

    async def test_the_server_learns_no_more_than_it_must(
        self, web: WebServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        web.pages["/first"] = 302, {"Location": "/second", "Set-Cookie": "id=1"}, b""
        web.pages["/second"] = 200, TEXT, b"words"
        assert (await get(web, "/first")).data == b"words"
        for _, headers in web.requests:
            assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
            assert headers["Host"] == f"{NAME}:{web.port}"

    async def test_packed_answers_are_unpacked(self, web: WebServer) -> None:
        web.pages["/a.txt"] = 200, TEXT | {"Content-Encoding": "gzip"}, gzip.compress(b"words " * 1000)
        assert (await get(web, "/a.txt")).data == b"words " * 1000

    async def test_letters_beyond_ascii_in_a_path_are_escaped(self, web: WebServer) -> None:
        web.pages["/K%C3%B6ln"] = 200, TEXT, b"words"
        assert (await get(web, "/Köln")).name == "Köln"

    async def test_tls_asks_for_the_name_though_the_connection_goes_to_the_address(
        self, tmp_path: Any, settings: Any
    ) -> None:
        server, client = certificate(tmp_path, NAME)
        with WebServer(tls=server) as web:
            change(settings, FETCH_HTTP=False, FETCH_PORTS=[web.port], FETCH_ALLOWED_HOSTS=[NAME, "other.example.org"])
            web.pages["/a.txt"] = 200, TEXT, b"words"
            url = f"https://{NAME}:{web.port}/a.txt"
            assert (await fetch(url, max_bytes=100, resolve=to_loopback, tls=client)).data == b"words"
            other = url.replace(NAME, "other.example.org")
            for each, trust in ((other, client), (url, None)):
                with pytest.raises(FetchFailed):
                    await fetch(each, max_bytes=100, resolve=to_loopback, tls=trust)
            assert len(web.requests) == 1


class TestRefusals:
    @pytest.mark.parametrize("status", [204, 206, 401, 403, 404, 410])
    async def test_what_is_not_there_is_not_asked_for_again(self, web: WebServer, status: int) -> None:
        web.pages["/a.txt"] = status, TEXT, b""
        with pytest.raises(UrlRefused, match=str(status)):
            await get(web, "/a.txt")

    @pytest.mark.parametrize("status", [429, 500, 503])
    async def test_what_is_away_may_come_back(self, web: WebServer, status: int) -> None:
        web.pages["/a.txt"] = status, TEXT, b"secret words of an error page"
        with pytest.raises(FetchFailed) as failure:
            await get(web, "/a.txt")
        assert failure.value.retry_after
        assert "secret" not in failure.value.message

    async def test_what_no_parser_reads_is_not_read_at_all(self, web: WebServer) -> None:
        for number, kind in enumerate(("image/png", "video/mp4", "application/zip", "application/octet-stream", "")):
            web.pages[f"/{number}"] = 200, {"Content-Type": kind}, dripping
            with pytest.raises(UrlRefused, match="no document"):
                await get(web, f"/{number}")

    async def test_bytes_of_a_known_name_are_a_document(self, web: WebServer) -> None:
        web.pages["/a.pdf"] = 200, {"Content-Type": "application/octet-stream"}, b"%PDF-"
        assert (await get(web, "/a.pdf")).data == b"%PDF-"

    @pytest.mark.parametrize(
        "url", ["ftp://{0}/a", "file:///etc/passwd", "gopher://{0}/", "//{0}/a", "{0}/a", "", "http:{0}"]
    )
    async def test_another_scheme_is_refused(self, url: str) -> None:
        with pytest.raises(UrlRefused, match="https://"):
            await fetch(url.format(NAME), max_bytes=10, resolve=to_loopback)

    async def test_http_needs_the_operators_word(self, web: WebServer, settings: Any) -> None:
        change(settings, FETCH_HTTP=False)
        with pytest.raises(UrlRefused, match="FETCH_HTTP"):
            await get(web, "/a.txt")
        assert web.hits == 0

    async def test_another_port_is_refused(self, web: WebServer, settings: Any) -> None:
        change(settings, FETCH_PORTS=[80, 443])
        with pytest.raises(UrlRefused, match="FETCH_PORTS"):
            await get(web, "/a.txt")
        assert web.hits == 0

    async def test_a_name_that_leads_nowhere_says_so(self, web: WebServer) -> None:
        async def unknown(host: str, port: int) -> list[str]:
            raise OSError("no such name")

        for resolve in (unknown, lambda *_: asyncio.sleep(0, [])):
            with pytest.raises(FetchFailed, match="could not be found"):
                await get(web, "/a.txt", resolve=resolve)


class TestBounds:
    async def test_a_large_answer_is_cut_off(self, web: WebServer) -> None:
        web.pages["/a.txt"] = 200, TEXT, b"x" * 10_001
        with pytest.raises(TooLarge, match="more than 10000 bytes"):
            await get(web, "/a.txt")
        web.pages["/a.txt"] = 200, TEXT, b"x" * 10_000
        assert len((await get(web, "/a.txt")).data) == 10_000

    async def test_a_packed_bomb_is_not_unpacked_beyond_the_bound(self, web: WebServer) -> None:
        bomb = gzip.compress(bytes(200_000_000))
        assert len(bomb) < 300_000
        web.pages["/a.txt"] = 200, TEXT | {"Content-Encoding": "gzip"}, bomb
        began = time.process_time()
        with pytest.raises(TooLarge):
            await get(web, "/a.txt")
        assert time.process_time() - began < 0.5

    @pytest.mark.parametrize(
        "body", [b"no gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9], b""], ids=["plain", "short", "empty"]
    )
    async def test_a_broken_packing_is_no_document(self, web: WebServer, body: bytes) -> None:
        web.pages["/a.txt"] = 200, TEXT | {"Content-Encoding": "gzip"}, body
        with pytest.raises(FetchFailed):
            await get(web, "/a.txt")

    async def test_an_encoding_that_nobody_asked_for_is_refused(self, web: WebServer) -> None:
        web.pages["/a.txt"] = 200, TEXT | {"Content-Encoding": "br"}, b"x"
        with pytest.raises(UrlRefused, match="encoding"):
            await get(web, "/a.txt")

    async def test_a_body_that_breaks_off_is_no_document(self, web: WebServer) -> None:
        web.pages["/a.txt"] = 200, TEXT | {"Content-Length": "100"}, b"too few"
        with pytest.raises(FetchFailed):
            await get(web, "/a.txt")

    async def test_a_slow_answer_ends_in_time(self, web: WebServer, settings: Any) -> None:
        change(settings, FETCH_TIMEOUT=0.5)
        web.pages["/a.txt"] = 200, TEXT, dripping
        began = time.monotonic()
        with pytest.raises(FetchFailed, match=r"0\.5 seconds"):
            await get(web, "/a.txt")
        assert time.monotonic() - began < 3

    async def test_three_redirects_are_followed_and_a_fourth_is_not(self, web: WebServer) -> None:
        for number in range(9):
            web.pages[f"/{number}"] = 302, {"Location": f"/{number + 1}"}, b""
        web.pages["/3"] = 200, TEXT, b"words"
        assert (await get(web, "/0")).url.endswith("/3")
        with pytest.raises(UrlRefused, match="more than 3"):
            await get(web, "/4")
        assert [path for path, _ in web.requests][-4:] == ["/4", "/5", "/6", "/7"]


#: 127.0.0.1 and its kin, in every way that some parser or resolver reads as them. {} is the port of the listener.
FORMS = """
http://127.0.0.1:{}/ | http://127.1:{}/ | http://127.0.1:{}/ | http://2130706433:{}/ | http://0x7f000001:{}/
http://0x7f.0.0.1:{}/ | http://0x7f.1:{}/ | http://0177.0.0.1:{}/ | http://017700000001:{}/ | http://0177.1:{}/
http://127.0.0.1.:{}/ | http://127.000.000.001:{}/ | http://0:{}/ | http://0.0.0.0:{}/ | http://00000000:{}/
http://127.127.127.127:{}/ | http://4294967295:{}/ | http://6425673729:{}/ | http://0x17f000001:{}/
http://localhost:{}/ | http://LOCALHOST:{}/ | http://localhost.:{}/ | http://localhost.localdomain:{}/
http://a.localhost:{}/ | http://evil.example.com:{}/ | http://docs.example.org.:{}/ | http://docs.example.org.evil.com:{}/
http://[::1]:{}/ | http://[::]:{}/ | http://[0:0:0:0:0:0:0:1]:{}/ | http://[0000::0001]:{}/ | http://[::127.0.0.1]:{}/
http://[::ffff:127.0.0.1]:{}/ | http://[::ffff:7f00:1]:{}/ | http://[::ffff:0:127.0.0.1]:{}/ | http://[::1%25lo]:{}/
http://[64:ff9b::127.0.0.1]:{}/ | http://[64:ff9b:1::7f00:1]:{}/ | http://[2002:7f00:1::]:{}/ | http://[fe80::1]:{}/
http://[2001:0:7f00:1::80ff:fffe]:{}/ | http://[fc00::1]:{}/ | http://[fd00:ec2::254]:{}/ | http://[fec0::1]:{}/
http://user@127.0.0.1:{}/ | http://docs.example.org@127.0.0.1:{}/ | http://docs.example.org:80@127.0.0.1:{}/
http://docs.example.org%40127.0.0.1:{}/ | http://docs.example.org#@127.0.0.1:{}/ | http://127.0.0.1:{}#@docs.example.org/
http://127.0.0.1:{}?@docs.example.org/ | http://127.0.0.1:{}\\@docs.example.org/ | http:\\\\127.0.0.1:{}/
http:/127.0.0.1:{}/ | http:127.0.0.1:{}/ | http:///127.0.0.1:{}/ | HTTP://127.0.0.1:{}/ | hTTp://127.1:{}/
http://１２７.0.0.1:{}/ | http://①②⑦.⓪.⓪.①:{}/ | http://127。0。0。1:{}/ | http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{}/ | http://xn--n3h.localhost:{}/
http://127.0.0.1%00.docs.example.org:{}/ | http://127.0.0.1%2edocs.example.org:{}/ | http://%31%32%37.0.0.1:{}/
http://127.0.0.1:{}:443/ | http://127.0.0.1:+{}/ | http://127.0.0.1:0{}/ | http://127.0.0.1: {}/ | http://127.0.0.1&@x:{}/
http://10.0.0.1:{}/ | http://172.16.0.1:{}/ | http://192.168.0.1:{}/ | http://169.254.169.254:{}/ | http://100.64.0.1:{}/
http://[::169.254.169.254]:{}/ | http://224.0.0.1:{}/ | http://240.0.0.1:{}/ | http://255.255.255.255:{}/ | http://[ff02::1]:{}/
http://192.0.2.1:{}/ | http://198.18.0.1:{}/ | http://[2001:db8::1]:{}/ | http://[100::1]:{}/ | http://metadata:{}/
"""  # noqa: RUF001 these digits are not what they look like
URLS = [form.strip() for line in FORMS.strip().splitlines() for form in line.split(" | ")]


class TestNothingPrivateIsReached:
    def test_there_are_enough_forms(self) -> None:
        assert len(set(URLS)) >= 60

    @pytest.mark.parametrize("url", URLS)
    async def test_no_form_of_an_address_reaches_a_private_listener(self, web: WebServer, url: str) -> None:
        web.pages["/"] = 200, TEXT, b"secret"
        for scheme in ("http", "https"):
            with pytest.raises((UrlRefused, FetchFailed)):
                await fetch(url.replace("http", scheme, 1).format(web.port), max_bytes=1000, resolve=to_loopback)
        assert web.hits == 0

    @pytest.mark.parametrize("url", URLS)
    async def test_no_redirect_to_one_does_either(self, url: str, settings: Any) -> None:
        with WebServer() as public_one, WebServer() as private:
            change(settings, FETCH_PORTS=[public_one.port, private.port])
            public_one.pages["/"] = 302, {"Location": url.format(private.port).encode().decode("latin-1")}, b""
            with pytest.raises((UrlRefused, FetchFailed)):
                await get(public_one, "/")
            assert private.hits == 0

    async def test_a_control_character_in_a_url_is_refused(self, web: WebServer) -> None:
        for sign in "\t\r\n\x00\x7f\u2028":
            for url in (
                f"http://127.0.0.1{sign}:{web.port}/",
                f"ht{sign}tp://{NAME}/",
                f"http://{NAME}:{web.port}/{sign}x",
            ):
                with pytest.raises(UrlRefused):
                    await fetch(url, max_bytes=10, resolve=to_loopback)
        assert web.hits == 0

    async def test_a_name_that_changes_its_mind_gains_nothing(self, web: WebServer) -> None:
        """It is public when it is checked, and would be this machine when it is connected to."""
        asked: list[str] = []

        async def rebinding(host: str, port: int) -> list[str]:
            asked.append(host)
            # The discard port's own network: nothing answers there, and it is a public address.
            return ["192.88.99.1" if len(asked) == 1 else "127.0.0.1"]

        with pytest.raises(FetchFailed):
            await asyncio.wait_for(get(web, "/", host="evil.example.com", resolve=rebinding), 30)
        assert (asked, web.hits) == (["evil.example.com"], 0)

    @pytest.mark.parametrize(
        "addresses", [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["::1", "8.8.8.8"], ["x"]]
    )
    async def test_one_private_address_among_public_ones_is_enough(self, web: WebServer, addresses: list[str]) -> None:
        async def both(host: str, port: int) -> list[str]:
            return addresses

        with pytest.raises(UrlRefused, match="private network"):
            await get(web, "/", host="evil.example.com", resolve=both)
        assert web.hits == 0

    async def test_the_systems_resolver_is_asked_and_checked(self, web: WebServer) -> None:
        with pytest.raises(UrlRefused, match="private network"):
            await fetch(f"http://localhost:{web.port}/", max_bytes=10)
        assert web.hits == 0

    async def test_even_an_allowed_name_does_not_lead_to_a_clouds_keys(self, web: WebServer) -> None:
        for address in ("169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1"):
            with pytest.raises(UrlRefused):
                await get(web, "/", resolve=lambda *_, to=address: asyncio.sleep(0, [to]))

    async def test_the_allowed_name_is_compared_as_a_whole(self, web: WebServer) -> None:
        for host in (f"x.{NAME}", f"x{NAME}", f"{NAME}.com", NAME[1:], "org"):
            with pytest.raises(UrlRefused):
                await get(web, "/", host=host)
        assert web.hits == 0


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_public_addresses_are_public(address: str) -> None:
    assert public(ipaddress.ip_address(address))


def test_a_public_url_is_read_as_it_is_written() -> None:
    address = address_of("HTTPS://Docs.Example.ORG/a%20b?c=d")
    assert address.url == "https://docs.example.org/a%20b?c=d"
    assert address_of("https://[2606:4700:0::1111]").url == "https://[2606:4700::1111]/"
