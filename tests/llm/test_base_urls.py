"""Which addresses a row may name: what could be read in two ways is refused."""

import pytest
from pytest_django import Settings

from kernel.errors import Invalid, Misconfigured
from llm import base_urls


@pytest.fixture(autouse=True)
def _allowed(settings: Settings) -> None:
    entries = ["https://api.example.com/v1", "http://10.0.0.5:8080/", "https://[2001:DB8::1]/v1", "https://Open.AI:443"]
    settings.DJANGO_CHAIN = {"LLM": {"ALLOWED_BASE_URLS": entries}}


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("HTTPS://API.Example.COM:443/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/team-a", "https://api.example.com/v1/team-a"),
        ("https://api.example.com/v1/a.b~c_d:e", "https://api.example.com/v1/a.b~c_d:e"),
        ("http://10.0.0.5:8080", "http://10.0.0.5:8080"),
        ("http://10.0.0.5:8080/anything", "http://10.0.0.5:8080/anything"),
        ("https://[2001:db8:0::1]/v1", "https://[2001:db8::1]/v1"),
        ("https://open.ai", "https://open.ai"),
        ("https://open.ai/v2", "https://open.ai/v2"),
    ],
)
def test_what_equals_or_lies_under_an_entry_is_allowed_in_one_form(url: str, canonical: str) -> None:
    assert base_urls.allowed(url) == canonical


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "//api.example.com/v1",
        "https:api.example.com/v1",
        "https:/api.example.com/v1",
        "https:///v1",
        "https://",
        "http://api.example.com/v1",  # another scheme
        "ftp://api.example.com/v1",
        "file:///etc/passwd",
        "javascript://api.example.com/v1",
        "https://api.example.com/v10",  # no segment's border
        "https://api.example.com/v1evil",
        "https://api.example.com",  # above the entry
        "https://api.example.com/V1",
        "https://api.example.com:8443/v1",
        "https://api.example.com:80/v1",
        "https://api.example.com:/v1",
        "https://api.example.com:0/v1",
        "https://api.example.com:99999/v1",
        "https://api.example.com:4 4 3/v1",
        "https://api.example.com./v1",  # the same name, another string
        "https://api.example.com.evil.net/v1",
        "https://evil.net/api.example.com/v1",
        "https://evilapi.example.com/v1",
        "https://api.example.com@evil.net/v1",
        "https://user:pass@api.example.com/v1",
        "https://@api.example.com/v1",
        "https://evil.net\\@api.example.com/v1",
        "https://api.example.com\\.evil.net/v1",
        "https://evil.net#@api.example.com/v1",
        "https://evil.net?@api.example.com/v1",
        "https://api.example.com/v1?key=1",
        "https://api.example.com/v1#x",
        "https://api.example.com/v1?",
        "https://api.example.com/v1/../admin",
        "https://api.example.com/v1/./x",
        "https://api.example.com/v1/%2e%2e/admin",
        "https://api.example.com/v1%2f..%2fadmin",
        "https://api.example.com/v1//x",
        "https://api.example.com//v1",
        "https://api.example.com/v1/a;b\\c",
        "https://api.example.com/v1\t",
        " https://api.example.com/v1",
        "https://api.example.com/v1\n",
        "https://api.ex\u00e4mple.com/v1",
        "https://api.example\u3002com/v1",  # an ideographic full stop, which some resolvers take for a dot
        "https://\uff41pi.example.com/v1",  # a full-width letter
        "https://api.example.com\u2044v1",
        "https://xn--api-.example.com/v1",
        "https://169.254.169.254/latest",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://10.5:8080/",
        "http://012.0.0.5:8080/",
        "https://[::1]/v1",
        "https://[2001:db8::1%25eth0]/v1",
        "https://[2001:db8::1/v1",
        "https://api.example.com/v1/" + "a" * 500,
    ],
)
def test_anything_else_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        base_urls.allowed(url)


def test_a_refusal_tells_no_one_what_is_allowed() -> None:
    with pytest.raises(Invalid) as refused:
        base_urls.allowed("https://evil.net")
    assert "example.com" not in str(refused.value)


def test_a_wrong_entry_of_the_setting_is_the_operators_to_mend(settings: Settings) -> None:
    settings.DJANGO_CHAIN = {"LLM": {"ALLOWED_BASE_URLS": ["https://me:secret@gateway"]}}
    with pytest.raises(Misconfigured, match="ALLOWED_BASE_URLS") as wrong:
        base_urls.allowed("https://gateway")
    assert "secret" not in str(wrong.value)
