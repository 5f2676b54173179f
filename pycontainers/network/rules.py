"""nftables: one table of our own, replaced as a whole in one transaction. Nothing of others is read into it or touched.

For each network three rules let its containers speak to the outside and not the outside to them (published ports come through
the forwarder, which is a local process)::

    chain postrouting { type nat hook postrouting priority srcnat; ip saddr SUBNET oifname != BRIDGE masquerade }
    chain forward { type filter hook forward priority filter; iifname BRIDGE accept;
                    oifname BRIDGE ct state established,related accept; oifname BRIDGE drop }
"""

from __future__ import annotations

import errno
import ipaddress
import os
import struct
from collections.abc import Sequence
from typing import Any

from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import (
    NFT_MSG_DELTABLE,
    NFT_MSG_GETCHAIN,
    NFT_MSG_GETGEN,
    NFT_MSG_GETRULE,
    NFT_MSG_NEWCHAIN,
    NFT_MSG_NEWRULE,
    NFT_MSG_NEWTABLE,
    Cmp,
    Meta,
    Regs,
    nft_chain_msg,
    nft_rule_msg,
    nft_table_msg,
)
from pyroute2.nftables.expressions import genex, masq, verdict

from .batch import NETLINK_NETFILTER, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, Netlink, NetlinkError

Subnet = tuple[str, ipaddress.IPv4Network]
"""Name of a bridge, and its network."""

_IPV4 = 2  # NFPROTO_IPV4: the table is of family ip
_BATCH_BEGIN, _BATCH_END = 16, 17  # NFNL_MSG_BATCH_BEGIN, _END
_FORWARD, _POSTROUTING = 2, 4  # NF_INET_FORWARD, NF_INET_POST_ROUTING
_PRIORITY_FILTER, _PRIORITY_SRCNAT = 0, 100
_DROP, _ACCEPT = 0, 1
_CT_STATE, _ESTABLISHED_RELATED = 0, 0x2 | 0x4  # NFT_CT_STATE; NF_CT_STATE_BIT of the two
_RULES_OF_A_NETWORK = 4
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT, errno.EINVAL, errno.EAFNOSUPPORT)
"""What a kernel without nftables, NAT or connection tracking says."""


def _interface(key: Meta, name: str, op: Cmp = Cmp.NFT_CMP_EQ) -> list[Any]:
    """``iifname|oifname [!=] name``: the register holds IFNAMSIZ bytes, padded with zeros."""
    return [
        genex("meta", {"key": key, "dreg": Regs.NFT_REG_1}),
        genex("cmp", {"sreg": Regs.NFT_REG_1, "op": op, "data": _value(name.encode().ljust(16, b"\0"))}),
    ]


def _value(data: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", data)]}


def _source(subnet: ipaddress.IPv4Network) -> list[Any]:
    """``ip saddr subnet``. (pyroute2's ``ipv4addr`` packs its mask in the machine's byte order: right only for some.)"""
    return [
        genex("payload", {"dreg": Regs.NFT_REG_1, "base": 1, "offset": 12, "len": 4}),
        genex("bitwise", {"sreg": Regs.NFT_REG_1, "dreg": Regs.NFT_REG_1, "len": 4,
                          "mask": _value(subnet.netmask.packed), "xor": _value(bytes(4))}),
        genex("cmp", {"sreg": Regs.NFT_REG_1, "op": Cmp.NFT_CMP_EQ, "data": _value(subnet.network_address.packed)}),
    ]


def _established() -> list[Any]:
    """``ct state established,related``: the state is a bit mask in the machine's byte order."""
    bits = struct.pack("=I", _ESTABLISHED_RELATED)
    return [
        genex("ct", {"key": _CT_STATE, "dreg": Regs.NFT_REG_1}),
        genex("bitwise", {"sreg": Regs.NFT_REG_1, "dreg": Regs.NFT_REG_1, "len": 4, "mask": _value(bits), "xor": _value(bytes(4))}),
        genex("cmp", {"sreg": Regs.NFT_REG_1, "op": Cmp.NFT_CMP_NEQ, "data": _value(bytes(4))}),
    ]


class Rules:
    """Our table in the current network namespace."""

    def __init__(self, table: str) -> None:
        self.table = table
        self.netlink = Netlink(NETLINK_NETFILTER)
        self._seen: tuple[int, tuple[Subnet, ...]] | None = None

    def close(self) -> None:
        self.netlink.close()

    def ensure(self, networks: Sequence[Subnet]) -> bool:
        """Have the table hold the rules of exactly these networks. False when nothing in any table changed since the last call.

        The kernel counts every change of any table (its generation id). While that stands still nothing has to be looked at.

        :raises NetlinkError: refused; its errno is in :data:`UNSUPPORTED` where the kernel lacks a part.
        """
        wanted = tuple(networks)
        generation = self.generation()
        if self._seen == (generation, wanted):
            return False
        if not (self._seen and self._seen[1] == wanted and self.count() == _RULES_OF_A_NETWORK * len(wanted)):
            self._transaction(self._table_parts(wanted))
        self._seen = (self.generation(), wanted)
        return True

    def remove(self) -> None:
        """Delete the table; one that is not there is no error."""
        self._seen = None
        self._transaction([("add table", self._table(NFT_MSG_NEWTABLE)), ("delete table", self._table(NFT_MSG_DELTABLE))])

    def probe(self, networks: Sequence[Subnet]) -> None:
        """Make the rules in a table of another name and delete it in the same transaction: nobody ever sees it.

        :raises NetlinkError: what is missing.
        """
        other = Rules(f"{self.table}_probe{os.getpid()}")
        try:
            parts = other._table_parts(networks)
            other._transaction([*parts, ("delete table", other._table(NFT_MSG_DELTABLE))])
        finally:
            other.close()

    def generation(self) -> int:
        """The generation id of the whole rule set.

        :raises NetlinkError: the kernel has no nftables.
        """
        payload = self.netlink.ask("asking for nftables", self._header(), NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN)
        (generation,) = struct.unpack_from(">I", payload, 8)  # nfgenmsg, then the first attribute: NFTA_GEN_ID
        return int(generation)

    def count(self) -> int:
        """How many rules our table holds now."""
        found = self.netlink.dump("listing rules", self._message(nft_rule_msg, []), NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE)
        return sum(1 for rule in found if rule.get_attr("NFTA_RULE_TABLE") == self.table)

    def dropping(self) -> list[str]:
        """Chains of others that drop forwarded packets by policy (``table chain``): an accept of ours does not overrule them."""
        found = self.netlink.dump("listing chains", self._message(nft_chain_msg, []), NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN)
        names = []
        for chain in found:
            hook = chain.get_attr("NFTA_CHAIN_HOOK")
            if hook and hook.get_attr("NFTA_HOOK_HOOKNUM") == _FORWARD and chain.get_attr("NFTA_CHAIN_POLICY") == _DROP:
                names.append(f"{chain.get_attr('NFTA_CHAIN_TABLE')} {chain.get_attr('NFTA_CHAIN_NAME')}")
        return names

    # --- messages ---

    def _table_parts(self, networks: Sequence[Subnet]) -> list[tuple[str, bytes]]:
        """Add, delete and make anew: in one transaction this replaces the table whether or not it is there."""
        parts = [("add table", self._table(NFT_MSG_NEWTABLE)), ("delete table", self._table(NFT_MSG_DELTABLE)),
                 ("add table", self._table(NFT_MSG_NEWTABLE)),
                 ("add nat chain", self._chain("postrouting", "nat", _POSTROUTING, _PRIORITY_SRCNAT)),
                 ("add forward chain", self._chain("forward", "filter", _FORWARD, _PRIORITY_FILTER))]
        for bridge, subnet in networks:
            out, into = _interface(Meta.NFT_META_IIFNAME, bridge), _interface(Meta.NFT_META_OIFNAME, bridge)
            leaving = _interface(Meta.NFT_META_OIFNAME, bridge, Cmp.NFT_CMP_NEQ)
            parts += [
                ("masquerade", self._rule("postrouting", _source(subnet) + leaving + masq())),
                ("forward out", self._rule("forward", out + verdict(_ACCEPT))),
                ("forward replies", self._rule("forward", into + _established() + verdict(_ACCEPT))),
                ("forward drop", self._rule("forward", into + verdict(_DROP))),
            ]
        return parts

    def _message(self, kind: Any, attrs: list[tuple[str, Any]]) -> Any:
        message = kind()
        message["nfgen_family"] = _IPV4
        message["attrs"] = attrs
        return message

    def _header(self, res_id: int = 0) -> Any:
        message = nfgen_msg()
        message["res_id"] = res_id
        return message

    def _encode(self, message: Any, kind: int, flags: int) -> bytes:
        return self.netlink.encode(message, NFNL_SUBSYS_NFTABLES << 8 | kind, flags | NLM_F_ACK)

    def _table(self, kind: int) -> bytes:
        flags = NLM_F_CREATE if kind == NFT_MSG_NEWTABLE else 0
        return self._encode(self._message(nft_table_msg, [("NFTA_TABLE_NAME", self.table)]), kind, flags)

    def _chain(self, name: str, kind: str, hook: int, priority: int) -> bytes:
        where = {"attrs": [("NFTA_HOOK_HOOKNUM", hook), ("NFTA_HOOK_PRIORITY", priority)]}
        attrs = [("NFTA_CHAIN_TABLE", self.table), ("NFTA_CHAIN_NAME", name), ("NFTA_CHAIN_HOOK", where),
                 ("NFTA_CHAIN_TYPE", kind), ("NFTA_CHAIN_POLICY", _ACCEPT)]
        return self._encode(self._message(nft_chain_msg, attrs), NFT_MSG_NEWCHAIN, NLM_F_CREATE)

    def _rule(self, chain: str, expressions: list[Any]) -> bytes:
        attrs = [("NFTA_RULE_TABLE", self.table), ("NFTA_RULE_CHAIN", chain), ("NFTA_RULE_EXPRESSIONS", expressions)]
        return self._encode(self._message(nft_rule_msg, attrs), NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)

    def _transaction(self, parts: list[tuple[str, bytes]]) -> None:
        """All or nothing: the kernel applies what stands between BATCH_BEGIN and BATCH_END, or none of it."""
        begin = self.netlink.encode(self._header(NFNL_SUBSYS_NFTABLES), _BATCH_BEGIN, 0)
        end = self.netlink.encode(self._header(NFNL_SUBSYS_NFTABLES), _BATCH_END, 0)
        messages = [("begin", begin, False), *((what, data, True) for what, data in parts), ("end", end, False)]
        for error in self.netlink.send(messages):
            if error is not None:
                raise error


__all__ = ["UNSUPPORTED", "NetlinkError", "Rules", "Subnet"]
