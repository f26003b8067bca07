"""No address but a public one."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cases import in_one_test
from xinference.https.public_addresses import public_address


@pytest.mark.parametrize("text", ["93.184.216.34", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::200e"])
def test_an_address_of_the_internet_is_public(text: str) -> None:
    assert str(public_address(text)) == text


@in_one_test(
    "text",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
        *("169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16"),  # metadata of clouds
        *("224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.7", "192.88.99.1"),
        *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "100::1"),
        *("::ffff:127.0.0.1", "::ffff:93.184.216.34", "::127.0.0.1"),  # IPv4 in IPv6
        *("64:ff9b::7f00:1", "64:ff9b::5db8:d822", "64:ff9b:1::1"),  # NAT64
        *("2002:7f00:1::", "2001:0:53aa:64c:0:7f:fe00:1", "2001:db8::1", "3fff::1", "5f00::1"),
        *("", "localhost", "0x7f.1", "2130706433", "127.1", "93.184.216.34:443", "2606:4700::1111%1"),
    ],
)
def test_any_other_text_is_not(text: str) -> None:
    assert public_address(text) is None


@given(st.ip_addresses())
def test_what_python_knows_as_special_is_never_public(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert public_address(str(address)) is None
