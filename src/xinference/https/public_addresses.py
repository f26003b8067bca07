"""The addresses of the public internet: a client must not reach any other one through this server."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

#: The special-purpose addresses of IANA's registry, and services that clouds have at public addresses.
_REFUSED_IPV4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16",
            "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "168.63.129.16/32",  # the host of a virtual machine on Azure
        ),
    )
)  # fmt: skip
#: The only block of IPv6 from which public addresses are assigned. Outside it are, among others, loopback, link-local,
#: private and multicast addresses, and those that contain an IPv4 address for a translator (``::ffff:0:0/96``,
#: ``64:ff9b::/96``).
_ASSIGNED_IPV6 = IPv6Network("2000::/3")
#: Parts of that block for protocols, tunnels (which contain an IPv4 address) and documentation.
_REFUSED_IPV6 = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")))


def public_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address that `text` is; None for an address that is not public, and for anything else."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        is_public = not any(address in network for network in _REFUSED_IPV4)
    else:
        is_public = (
            address.scope_id is None
            and address in _ASSIGNED_IPV6
            and not any(address in network for network in _REFUSED_IPV6)
        )
    return address if is_public else None
