"""nftables: one table of our own, replaced as a whole in one transaction. Nothing of others is read into it or touched.

For each network three rules let its containers speak to the outside and not the outside to them (published ports come through
the forwarder, which is a local process)::

    chain postrouting { type nat hook postrouting priority srcnat; ip saddr SUBNET oifname != BRIDGE masquerade }
    chain forward { type filter hook forward priority filter; iifname BRIDGE accept;
                    oifname BRIDGE ct state established,related accept; oifname BRIDGE drop }

In a network namespace of an ordinary user, where nobody but we and the way out are, one more::

    chain input { type filter hook input priority filter; ct state invalid drop }

NAT leaves a packet that connection tracking cannot make sense of as it is: it would be taken for the namespace itself, which knows
nothing of it and resets the container's connection. pasta sends such packets (window updates without any flag).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import struct
from collections.abc import Sequence

from . import messages
from .batch import NETLINK_NETFILTER, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, Netlink, NetlinkError
from .messages import DIFFERENT, EQUAL, IIFNAME, NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE, NFT_MSG_NEWTABLE, OIFNAME

Subnet = tuple[str, ipaddress.IPv4Network]
"""Name of a bridge, and its network."""

_IPV4 = 2  # NFPROTO_IPV4: the table is of family ip
_BATCH_BEGIN, _BATCH_END = 16, 17  # NFNL_MSG_BATCH_BEGIN, _END
_INPUT, _FORWARD, _POSTROUTING = 1, 2, 4  # NF_INET_LOCAL_IN, NF_INET_FORWARD, NF_INET_POST_ROUTING
_PRIORITY_FILTER, _PRIORITY_SRCNAT = 0, 100
_DROP, _ACCEPT = 0, 1
_CT_STATE, _INVALID, _ESTABLISHED_RELATED = 0, 0x1, 0x2 | 0x4  # NFT_CT_STATE; NF_CT_STATE_BIT of each
_RULES_OF_A_NETWORK = 4
UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT, errno.EINVAL, errno.EAFNOSUPPORT)
"""What a kernel without nftables, NAT or connection tracking says."""


def _interface(key: int, name: str, how: int = EQUAL) -> bytes:
    """``iifname|oifname [!=] name``: the register holds IFNAMSIZ bytes, padded with zeros."""
    return messages.meta(key) + messages.compare(how, name.encode().ljust(16, b"\0"))


def _source(subnet: ipaddress.IPv4Network) -> bytes:
    """``ip saddr subnet``: four bytes at offset 12 of the IP header."""
    parts = (messages.network_header(12, 4), messages.masked(subnet.netmask.packed), messages.compare(EQUAL, subnet.network_address.packed))
    return b"".join(parts)


def _state(states: int) -> bytes:
    """``ct state …``: the state is a bit mask in the machine's byte order."""
    bits = struct.pack("=I", states)
    return messages.connection_state() + messages.masked(bits) + messages.compare(DIFFERENT, bytes(4))


class Rules:
    """Our table in the current network namespace. ``own``: the namespace is an ordinary user's."""

    def __init__(self, table: str, own: bool = False) -> None:
        self.table, self.own = table, own
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
        if not (self._seen and self._seen[1] == wanted and self.count() == _RULES_OF_A_NETWORK * len(wanted) + self.own):
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
        other = Rules(f"{self.table}_probe{os.getpid()}", self.own)
        try:
            parts = other._table_parts(networks)
            other._transaction([*parts, ("delete table", other._table(NFT_MSG_DELTABLE))])
        finally:
            other.close()

    def generation(self) -> int:
        """The generation id of the whole rule set.

        :raises NetlinkError: the kernel has no nftables.
        """
        payload = self.netlink.ask("asking for nftables", messages.netfilter(), NFNL_SUBSYS_NFTABLES << 8 | messages.NFT_MSG_GETGEN)
        (generation,) = struct.unpack_from(">I", payload, 8)  # nfgenmsg, then the first attribute: NFTA_GEN_ID
        return int(generation)

    def count(self) -> int:
        """How many rules our table holds now."""
        ours = self.table.encode() + b"\0"
        return sum(1 for rule in self._listed("rules", messages.NFT_MSG_GETRULE) if rule.get(messages.NFTA_RULE_TABLE) == ours)

    def dropping(self) -> list[str]:
        """Chains of others that drop forwarded packets by policy (``table chain``): an accept of ours does not overrule them."""
        names = []
        for chain in self._listed("chains", messages.NFT_MSG_GETCHAIN):
            hook = messages.attributes(chain.get(messages.NFTA_CHAIN_HOOK, b""))
            where, policy = hook.get(messages.NFTA_HOOK_HOOKNUM), chain.get(messages.NFTA_CHAIN_POLICY)
            if where == struct.pack(">I", _FORWARD) and policy == struct.pack(">I", _DROP):
                table, name = (chain[kind].rstrip(b"\0").decode() for kind in (messages.NFTA_CHAIN_TABLE, messages.NFTA_CHAIN_NAME))
                names.append(f"{table} {name}")
        return names

    def _listed(self, what: str, kind: int) -> list[dict[int, bytes]]:
        found = self.netlink.dump(f"listing {what}", messages.netfilter(family=_IPV4), NFNL_SUBSYS_NFTABLES << 8 | kind)
        return [messages.netfilter_attributes(body) for body in found]

    # --- messages ---

    def _table_parts(self, networks: Sequence[Subnet]) -> list[tuple[str, bytes]]:
        """Add, delete and make anew: in one transaction this replaces the table whether or not it is there."""
        parts = [("add table", self._table(NFT_MSG_NEWTABLE)), ("delete table", self._table(NFT_MSG_DELTABLE)),
                 ("add table", self._table(NFT_MSG_NEWTABLE)),
                 ("add nat chain", self._chain("postrouting", "nat", _POSTROUTING, _PRIORITY_SRCNAT)),
                 ("add forward chain", self._chain("forward", "filter", _FORWARD, _PRIORITY_FILTER))]
        if self.own:
            parts.append(("add input chain", self._chain("input", "filter", _INPUT, _PRIORITY_FILTER)))
            parts.append(("drop invalid", self._rule("input", _state(_INVALID) + messages.verdict(_DROP))))
        for bridge, subnet in networks:
            out, into, leaving = _interface(IIFNAME, bridge), _interface(OIFNAME, bridge), _interface(OIFNAME, bridge, DIFFERENT)
            parts += [
                ("masquerade", self._rule("postrouting", _source(subnet) + leaving + messages.masquerade())),
                ("forward out", self._rule("forward", out + messages.verdict(_ACCEPT))),
                ("forward replies", self._rule("forward", into + _state(_ESTABLISHED_RELATED) + messages.verdict(_ACCEPT))),
                ("forward drop", self._rule("forward", into + messages.verdict(_DROP))),
            ]
        return parts

    def _encode(self, kind: int, flags: int, *inside: bytes) -> bytes:
        return self.netlink.encode(messages.netfilter(*inside, family=_IPV4), NFNL_SUBSYS_NFTABLES << 8 | kind, flags | NLM_F_ACK)

    def _table(self, kind: int) -> bytes:
        flags = NLM_F_CREATE if kind == NFT_MSG_NEWTABLE else 0
        return self._encode(kind, flags, messages.attribute(messages.NFTA_TABLE_NAME, self.table))

    def _chain(self, name: str, kind: str, hook: int, priority: int) -> bytes:
        where = messages.big(messages.NFTA_HOOK_HOOKNUM, hook) + messages.big(messages.NFTA_HOOK_PRIORITY, priority)
        return self._encode(
            messages.NFT_MSG_NEWCHAIN,
            NLM_F_CREATE,
            messages.attribute(messages.NFTA_CHAIN_TABLE, self.table),
            messages.attribute(messages.NFTA_CHAIN_NAME, name),
            messages.group(messages.NFTA_CHAIN_HOOK, where),
            messages.attribute(messages.NFTA_CHAIN_TYPE, kind),
            messages.big(messages.NFTA_CHAIN_POLICY, _ACCEPT),
        )

    def _rule(self, chain: str, expressions: bytes) -> bytes:
        return self._encode(
            messages.NFT_MSG_NEWRULE,
            NLM_F_CREATE | NLM_F_APPEND,
            messages.attribute(messages.NFTA_RULE_TABLE, self.table),
            messages.attribute(messages.NFTA_RULE_CHAIN, chain),
            messages.expressions(expressions),
        )

    def _transaction(self, parts: list[tuple[str, bytes]]) -> None:
        """All or nothing: the kernel applies what stands between BATCH_BEGIN and BATCH_END, or none of it."""
        whole = messages.netfilter(resource=NFNL_SUBSYS_NFTABLES)
        begin, end = (self.netlink.encode(whole, kind, 0) for kind in (_BATCH_BEGIN, _BATCH_END))
        for error in self.netlink.send([("begin", begin, False), *((what, data, True) for what, data in parts), ("end", end, False)]):
            if error is not None:
                raise error


__all__ = ["UNSUPPORTED", "NetlinkError", "Rules", "Subnet"]
