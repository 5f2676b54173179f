"""The few netlink messages that links, bridges and rules need, as bytes, and what the kernel answers, as attributes.

Written out here, a message costs microseconds and the process that sends it stays small: a library that knows all of netlink takes 25 MB
and 0.3 s to load. The layouts are those of the kernel's headers: linux/netlink.h, rtnetlink.h, if_link.h, if_addr.h and
netfilter/nf_tables.h. A test compares them with pyroute2's, byte by byte.
"""

from __future__ import annotations

import socket
import struct

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_NESTED = 0x8000  # NLA_F_NESTED: nf_tables insists on it, rtnetlink does without
_TYPE_MASK = 0x3FFF

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 16, 17, 18, 20, 22, 24, 26

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MASTER, IFLA_LINKINFO, IFLA_IFALIAS, IFLA_AF_SPEC, IFLA_NET_NS_FD = 1, 3, 10, 18, 20, 26, 28
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, prefix lengths of target and source, tos, table, protocol, scope, type, flags
_NETFILTER = struct.Struct(">BBH")  # struct nfgenmsg: family, version, resource

NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_GETCHAIN = 0, 2, 3, 4
NFT_MSG_NEWRULE, NFT_MSG_GETRULE, NFT_MSG_GETGEN = 6, 7, 16
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_POLICY, NFTA_CHAIN_TYPE = 1, 3, 4, 5, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 1, 2, 4
_NFTA_LIST_ELEM, _NFTA_EXPR_NAME, _NFTA_EXPR_DATA = 1, 1, 2
_NFTA_DATA_VALUE, _NFTA_DATA_VERDICT, _NFTA_VERDICT_CODE = 1, 2, 1
_REG_VERDICT, _REG_1 = 0, 1
IIFNAME, OIFNAME = 6, 7  # NFT_META_*
EQUAL, DIFFERENT = 0, 1  # NFT_CMP_EQ, NFT_CMP_NEQ


def message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    """A whole message: the header before ``body``."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, value: bytes | str) -> bytes:
    """One attribute, padded to four bytes; a text ends with a zero."""
    data = value.encode() + b"\0" if isinstance(value, str) else value
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def number(kind: int, value: int) -> bytes:
    """An attribute with 32 bits in the machine's order, as rtnetlink has them."""
    return attribute(kind, struct.pack("=I", value))


def nested(kind: int, *inside: bytes) -> bytes:
    return attribute(kind, b"".join(inside))


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in ``data`` by their type, without the flags; of several with one type the last."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


# --- rtnetlink ---


def link(*inside: bytes, index: int = 0, flags: int = 0) -> bytes:
    """An interface. ``flags`` are set (IFF_UP) and nothing else is changed."""
    return _LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags) + b"".join(inside)


def link_info(kind: str, *data: bytes) -> bytes:
    inside = [attribute(IFLA_INFO_KIND, kind)]
    return nested(IFLA_LINKINFO, *inside, *([nested(IFLA_INFO_DATA, *data)] if data else []))


def hardware(address: str) -> bytes:
    """IFLA_ADDRESS from the form with colons."""
    return attribute(IFLA_ADDRESS, bytes.fromhex(address.replace(":", "")))


def without_link_local() -> bytes:
    """The interface gives itself no IPv6 address. Taken for one that is there, not while it is made; before it goes up."""
    return nested(IFLA_AF_SPEC, nested(socket.AF_INET6, attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))))


def index_of_link(body: bytes) -> int:
    return int(_LINK.unpack_from(body)[2])


def attributes_of_link(body: bytes) -> dict[int, bytes]:
    return attributes(body[_LINK.size :])


def address(index: int, local: bytes, broadcast: bytes, prefix: int) -> bytes:
    """An IPv4 address of an interface."""
    inside = attribute(IFA_LOCAL, local) + attribute(IFA_ADDRESS, local) + attribute(IFA_BROADCAST, broadcast)
    return _ADDRESS.pack(socket.AF_INET, prefix, 0, 0, index) + inside


def any_address() -> bytes:
    """What a listing of all IPv4 addresses asks for."""
    return _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)


def parsed_address(body: bytes) -> tuple[int, int, dict[int, bytes]]:
    """(index of the interface, prefix length, attributes)."""
    _, prefix, _, _, index = _ADDRESS.unpack_from(body)
    return index, prefix, attributes(body[_ADDRESS.size :])


def default_route(index: int, gateway: bytes) -> bytes:
    """A static unicast route for everything, in the main table (254)."""
    return _ROUTE.pack(socket.AF_INET, 0, 0, 0, 254, 4, 0, 1, 0) + attribute(RTA_GATEWAY, gateway) + number(RTA_OIF, index)


def any_route() -> bytes:
    return _ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)


def parsed_route(body: bytes) -> tuple[int, int, dict[int, bytes]]:
    """(prefix length of the target, type, attributes)."""
    fields = _ROUTE.unpack_from(body)
    return fields[1], fields[7], attributes(body[_ROUTE.size :])


# --- nf_tables ---


def netfilter(*inside: bytes, family: int = 0, resource: int = 0) -> bytes:
    return _NETFILTER.pack(family, 0, resource) + b"".join(inside)


def netfilter_attributes(body: bytes) -> dict[int, bytes]:
    return attributes(body[_NETFILTER.size :])


def big(kind: int, value: int) -> bytes:
    """An attribute with 32 bits in network order, as nf_tables has them."""
    return attribute(kind, struct.pack(">I", value))


def group(kind: int, *inside: bytes) -> bytes:
    """Attributes in an attribute, marked so."""
    return attribute(kind | _NESTED, b"".join(inside))


def expressions(*each: bytes) -> bytes:
    """NFTA_RULE_EXPRESSIONS."""
    return group(NFTA_RULE_EXPRESSIONS, *each)


def _expression(name: str, *inside: bytes) -> bytes:
    return group(_NFTA_LIST_ELEM, attribute(_NFTA_EXPR_NAME, name), group(_NFTA_EXPR_DATA, *inside))


def meta(key: int) -> bytes:
    """Load a fact about the packet (:data:`IIFNAME`, :data:`OIFNAME`) into register 1."""
    return _expression("meta", big(1, _REG_1), big(2, key))


def compare(how: int, value: bytes) -> bytes:
    """Go on with the rule if register 1 is (:data:`EQUAL`) or is not (:data:`DIFFERENT`) ``value``."""
    return _expression("cmp", big(1, _REG_1), big(2, how), group(3, attribute(_NFTA_DATA_VALUE, value)))


def network_header(offset: int, length: int) -> bytes:
    """Load a part of the IP header (NFT_PAYLOAD_NETWORK_HEADER) into register 1."""
    return _expression("payload", big(1, _REG_1), big(2, 1), big(3, offset), big(4, length))


def masked(mask: bytes) -> bytes:
    """Register 1 becomes register 1 AND ``mask``."""
    value, zero = (group(kind, attribute(_NFTA_DATA_VALUE, data)) for kind, data in ((4, mask), (5, bytes(len(mask)))))
    return _expression("bitwise", big(1, _REG_1), big(2, _REG_1), big(3, len(mask)), value, zero)


def connection_state() -> bytes:
    """Load the state of the packet's connection (NFT_CT_STATE), a bit mask in the machine's order, into register 1."""
    return _expression("ct", big(2, 0), big(1, _REG_1))


def masquerade() -> bytes:
    return _expression("masq")


def verdict(code: int) -> bytes:
    """What becomes of the packet: NF_DROP 0, NF_ACCEPT 1."""
    return _expression("immediate", big(1, _REG_VERDICT), group(2, group(_NFTA_DATA_VERDICT, big(_NFTA_VERDICT_CODE, code))))
