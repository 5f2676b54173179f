"""The link of one container: a veth pair, one end a port of the bridge, the other ``eth0`` inside the container's namespace."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from typing import Any

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ..errors import NetworkError
from . import batch
from .addresses import mac
from .batch import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, Netlink

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 16, 17, 18, 20, 22, 24, 26
IFF_UP = 1
CREATE = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
INTERFACE = "eth0"
_LOOPBACK = 1  # index of lo in every network namespace (the kernel's LOOPBACK_IFINDEX)
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1


def host_name(container: str) -> str:
    """The host's end of a container's link: at most 15 characters (IFNAMSIZ)."""
    return f"pyct{container[:8]}"


def link(name: str = "", index: int = 0, up: bool = False, **attributes: Any) -> Any:
    """An interface message. ``attributes`` are those of ``ifinfmsg`` without ``IFLA_``."""
    message = ifinfmsg()
    message["family"], message["index"] = socket.AF_UNSPEC, index
    if up:
        message["flags"] = message["change"] = IFF_UP
    attrs: list[tuple[str, Any]] = [("IFLA_IFNAME", name)] if name else []
    message["attrs"] = attrs + [(f"IFLA_{key.upper()}", value) for key, value in attributes.items()]
    return message


def address_message(index: int, address: ipaddress.IPv4Address, subnet: ipaddress.IPv4Network) -> Any:
    message = ifaddrmsg()
    message["family"], message["prefixlen"], message["index"] = socket.AF_INET, subnet.prefixlen, index
    message["attrs"] = [
        ("IFA_LOCAL", str(address)), ("IFA_ADDRESS", str(address)), ("IFA_BROADCAST", str(subnet.broadcast_address)),
    ]
    return message


def _default_route(index: int, gateway: ipaddress.IPv4Address) -> Any:
    message = rtmsg()
    message["family"], message["table"], message["proto"] = socket.AF_INET, _RT_TABLE_MAIN, _RTPROT_STATIC
    message["type"] = _RTN_UNICAST
    message["attrs"] = [("RTA_GATEWAY", str(gateway)), ("RTA_OIF", index)]
    return message


def index_of(netlink: Netlink, name: str) -> int | None:
    """The index of an interface, None when there is none of that name."""
    try:
        payload = netlink.ask(f"looking up {name}", link(name), RTM_GETLINK)
    except batch.NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise
    (index,) = struct.unpack_from("=i", payload, 4)  # struct ifinfomsg: family, pad, type, index
    return int(index)


def create(netlink: Netlink, container: str, bridge: int, namespace: int, address: ipaddress.IPv4Address) -> None:
    """Make the pair, the peer at once inside ``namespace``: moving it there later costs 20 ms (it is unregistered here first).

    :raises batch.NetlinkError: EEXIST when an old link of this container is left; ENODEV, EINVAL when the bridge is gone.
    """
    peer = {"attrs": [("IFLA_IFNAME", INTERFACE), ("IFLA_ADDRESS", mac(address)), ("IFLA_NET_NS_FD", namespace)]}
    kind = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
    message = link(host_name(container), up=True, master=bridge, linkinfo=kind)
    netlink.run([("making the veth pair", netlink.encode(message, RTM_NEWLINK, CREATE))])


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
            ("lo up", encode(link(index=_LOOPBACK, up=True), RTM_NEWLINK, NLM_F_ACK)),
            (f"address {address}", encode(address_message(index, address, subnet), RTM_NEWADDR, CREATE)),
            (f"{INTERFACE} up", encode(link(index=index, up=True), RTM_NEWLINK, NLM_F_ACK)),
            (f"default route by {gateway}", encode(_default_route(index, gateway), RTM_NEWROUTE, CREATE)),
        ])


def delete(netlink: Netlink, name: str) -> bool:
    """Delete an interface (20 ms: the kernel waits for all readers). False when it is gone already."""
    try:
        netlink.run([(f"deleting {name}", netlink.encode(link(name), RTM_DELLINK, NLM_F_ACK))])
    except batch.NetlinkError as error:
        if error.errno == errno.ENODEV:
            return False
        raise
    return True


def ports_of(netlink: Netlink, bridge: int) -> list[str]:
    """Names of the interfaces that are ports of the bridge with this index."""
    found = netlink.dump("listing links", link(), RTM_GETLINK)
    return [str(item.get_attr("IFLA_IFNAME")) for item in found if item.get_attr("IFLA_MASTER") == bridge]
