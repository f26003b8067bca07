"""An address is read in one way only, and the hosts of the setting are those that it names."""

from __future__ import annotations

import pytest

from tests.support.cases import in_one_test
from xinference.config import Settings
from xinference.errors import Problem
from xinference.hosts import DomainList
from xinference.https.address import HttpsAddress, parse


@in_one_test(
    ("text", "url"),
    [
        ("https://a.b", HttpsAddress("a.b", 443, "/")),
        ("HTTPS://A.B./x.png?y=1&z=%20#f", HttpsAddress("a.b", 443, "/x.png?y=1&z=%20")),
        ("https://a.b:8443?q", HttpsAddress("a.b", 8443, "/?q")),
        ("https://a.b:/x", HttpsAddress("a.b", 443, "/x")),
        ("https://bücher.example/ü?ö", HttpsAddress("xn--bcher-kva.example", 443, "/%C3%BC?%C3%B6")),
        ("https://1.2.3.4/x", HttpsAddress("1.2.3.4", 443, "/x")),
        ("https://[2606:4700::1]/x", HttpsAddress("2606:4700::1", 443, "/x")),
        ("https://a.b/x/../y@z:1", HttpsAddress("a.b", 443, "/x/../y@z:1")),
    ],
)
def test_the_parts_of_an_address(text: str, url: HttpsAddress) -> None:
    assert parse(text) == url


@in_one_test(
    "text",
    [
        *("http://a.b/x", "ftp://a.b", "file:///etc/passwd", "//a.b/x", "https:/a.b", "https:a.b", "a.b", ""),
        *("https://u@a.b/", "https://u:p@a.b/", "https://a.b@c.d/", "https:///x", "https://:443/", "https://a..b/"),
        *("https://a.b\\@c.d/", "https://a.b\t/", "https://a.b/\r\nX: y", " https://a.b", "https://a.b/x y"),
        *(
            "https://a.b:0/",
            "https://a.b:65536/",
            "https://a.b:443443/",
            "https://a.b:x/",
            "https://[::1/",
            "https://[]/",
        ),
        *("https://a%2eb/", "https://a.b%00/", "https://-a.b/", "https://[a.b]/", f"https://a.b/{'x' * 8192}"),
        *(f"https://{'a' * 300}/", "https://a.b\x00/", "https://a\u3002\u3002b/"),
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    assert parse(text) is None


def test_the_header_of_the_host_has_the_port_if_it_is_not_443() -> None:
    assert [HttpsAddress("a.b", port, "/").authority for port in (443, 8443)] == ["a.b", "a.b:8443"]
    assert HttpsAddress("2606:4700::1", 8443, "/").authority == "[2606:4700::1]:8443"


@pytest.mark.parametrize(
    ("setting", "allowed", "refused"),
    [
        ("a.b", [("a.b", 443)], [("c.a.b", 443), ("xa.b", 443), ("a.b", 8443), ("b", 443)]),
        ("*.a.b", [("c.a.b", 443), ("d.c.a.b", 443)], [("a.b", 443), ("xa.b", 443), ("c.a.b", 80)]),
        ("A.b. , c.d:8443", [("a.b", 443), ("c.d", 8443)], [("c.d", 443)]),
        ("*", [("a.b", 443), ("1.2.3.4", 443), ("2606:4700::1", 443)], [("a.b", 8443)]),
        ("bücher.example", [("xn--bcher-kva.example", 443)], []),
    ],
)
def test_the_hosts_of_a_setting(setting: str, allowed: list[tuple[str, int]], refused: list[tuple[str, int]]) -> None:
    domains = DomainList(setting)
    assert all(domains.has(*host) for host in allowed)
    assert not any(domains.has(*host) for host in refused)


@in_one_test("entry", ["https://a.b", "a.b/c", "*a.b", "a.*.b", "a.b:x", ".", "*."])
def test_a_setting_with_another_entry_is_refused(entry: str) -> None:
    with pytest.raises(Problem, match="XINFERENCE_ALLOW_MEDIA_URLS has"):
        Settings.from_env({"XINFERENCE_ALLOW_MEDIA_URLS": f"c.d,{entry}"})
