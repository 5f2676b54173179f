"""The link of one container: a veth pair, one end a port of the bridge, the other ``eth0`` inside the container's namespace."""

from __future__ import annotations

import errno
import ipaddress
import struct

from ..errors import NetworkError
from . import batch, messages
from .addresses import mac
from .batch import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, Netlink
from .messages import RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE

IFF_UP = 1
CREATE = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
INTERFACE = "eth0"
NO_IPV6 = "no IPv6 address"
"""The network is IPv4's. With an address of its own on each end, every link that goes up says so to all others by multicast: of 40
containers 10,000 packets, of 200 a quarter of a million, in the midst of the starts."""
_LOOPBACK = 1  # index of lo in every network namespace (the kernel's LOOPBACK_IFINDEX)


def host_name(container: str) -> str:
    """The host's end of a container's link: at most 15 characters (IFNAMSIZ)."""
    return f"pyct{container[:8]}"


def named(name: str) -> bytes:
    """An interface by its name."""
    return messages.link(messages.attribute(messages.IFLA_IFNAME, name))


def up(index: int) -> bytes:
    return messages.link(index=index, flags=IFF_UP)


def address_message(index: int, address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network) -> bytes:
    return messages.address(index, address.packed, subnet.broadcast_address.packed, subnet.prefixlen)


def index_of(netlink: Netlink, name: str) -> int | None:
    """The index of an interface, None when there is none of that name."""
    try:
        payload = netlink.ask(f"looking up {name}", named(name), RTM_GETLINK)
    except batch.NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    return messages.index_of_link(payload)


def create(netlink: Netlink, container: str, bridge: int, namespace: int, address: ipaddress.IPv4Address) -> None:
    """Make the pair, the peer at once inside ``namespace``: moving it there later costs 20 ms (it is unregistered here first).

    :raises batch.NetlinkError: EEXIST when an old link of this container is left; ENODEV, EINVAL when the bridge is gone.
    """
    name = messages.attribute(messages.IFLA_IFNAME, INTERFACE)
    peer = messages.link(name, messages.hardware(mac(address)), messages.number(messages.IFLA_NET_NS_FD, namespace))
    pair = messages.link(
        messages.attribute(messages.IFLA_IFNAME, host_name(container)),
        messages.number(messages.IFLA_MASTER, bridge),
        messages.link_info("veth", messages.attribute(messages.VETH_INFO_PEER, peer)),
    )
    ours = messages.attribute(messages.IFLA_IFNAME, host_name(container))
    netlink.run(
        [
            ("making the veth pair", netlink.encode(pair, RTM_NEWLINK, CREATE)),
            (NO_IPV6, netlink.encode(messages.link(ours, messages.without_link_local()), RTM_NEWLINK, NLM_F_ACK)),
            ("up", netlink.encode(messages.link(ours, flags=IFF_UP), RTM_NEWLINK, NLM_F_ACK)),
        ]
    )


def configure(
    namespace: int, address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network, gateway: ipaddress.IPv4Address
) -> None:
    """Inside ``namespace``: loopback up, address, ``eth0`` up, default route; all in one batch. The order matters: a route needs
    its link up and its gateway reachable.
    """
    with batch.inside(namespace) as netlink:
        index = index_of(netlink, INTERFACE)
        if index is None:
            raise NetworkError(f"{INTERFACE} is not in the container's network namespace")
        encode = netlink.encode
        netlink.run([
            ("lo up", encode(up(_LOOPBACK), RTM_NEWLINK, NLM_F_ACK)),
            (f"address {address}", encode(address_message(index, address, subnet), RTM_NEWADDR, CREATE)),
            (NO_IPV6, encode(messages.link(messages.without_link_local(), index=index), RTM_NEWLINK, NLM_F_ACK)),
            (f"{INTERFACE} up", encode(up(index), RTM_NEWLINK, NLM_F_ACK)),
            (f"default route by {gateway}", encode(messages.default_route(index, gateway.packed), RTM_NEWROUTE, CREATE)),
        ])


def delete(netlink: Netlink, name: str) -> bool:
    """Delete an interface (20 ms: the kernel waits for all readers). False when it is gone already."""
    try:
        netlink.run([(f"deleting {name}", netlink.encode(named(name), RTM_DELLINK, NLM_F_ACK))])
    except batch.NetlinkError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def ports_of(netlink: Netlink, bridge: int) -> list[str]:
    """Names of the interfaces that are ports of the bridge with this index."""
    found = (messages.attributes_of_link(body) for body in netlink.dump("listing links", messages.link(), RTM_GETLINK))
    master = struct.pack("=I", bridge)
    return [item[messages.IFLA_IFNAME].rstrip(b"\0").decode() for item in found if item.get(messages.IFLA_MASTER) == master]
