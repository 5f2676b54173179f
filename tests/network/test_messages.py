"""Our netlink messages say what pyroute2's say: a second writer of the same layouts, which knows all of netlink."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from pycontainers.network import links, messages, rules

pytest.importorskip("pyroute2", reason="pyroute2 is not installed: nothing to compare with")
from pyroute2.netlink.nfnetlink import nfgen_msg
from pyroute2.netlink.nfnetlink.nftsocket import Cmp, Meta, Regs, nft_chain_msg, nft_rule_msg, nft_table_msg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.nftables.expressions import genex, masq, verdict

SUBNET = ipaddress.IPv4Network("10.91.0.0/16")
ADDRESS = SUBNET.network_address + 7


def plain(value: Any) -> Any:
    """A decoded message without what depends on who wrote it: the order of attributes, lengths and flags of the envelope."""
    if isinstance(value, dict):
        kept = {key: plain(item) for key, item in value.items() if key not in ("header", "attrs", "event", "error", "state", "res_id")}
        return kept | {"attrs": sorted((plain(tuple(pair)[:2]) for pair in value.get("attrs", [])), key=repr)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def decoded(kind: type, data: bytes) -> Any:
    message = kind(data)
    message.decode()
    return plain(message)


def theirs(message: Any, kind: int) -> Any:
    message["header"]["type"], message["header"]["sequence_number"] = kind, 1
    message.encode()
    return decoded(type(message), bytes(message.data))


def ours(kind: type, number: int, body: bytes) -> Any:
    return decoded(kind, messages.message(number, 1, 1, body))


def test_a_veth_pair_whose_other_end_is_born_in_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        def encode(self, body: bytes, kind: int, flags: int) -> bytes:
            return messages.message(kind, flags, 1, body)

        def run(self, parts: Any) -> None:
            self.sent = [data for _, data in parts]

    recorder = Recorder()
    links.create(recorder, "ab" * 32, 42, 9, ADDRESS)  # type: ignore[arg-type]
    message = ifinfmsg()
    message["family"] = socket.AF_UNSPEC
    peer = {"attrs": [("IFLA_IFNAME", "eth0"), ("IFLA_ADDRESS", "02:42:0a:5b:00:07"), ("IFLA_NET_NS_FD", 9)]}
    info = {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer)]})]}
    message["attrs"] = [("IFLA_IFNAME", "pyctabababab"), ("IFLA_MASTER", 42), ("IFLA_LINKINFO", info)]
    assert decoded(ifinfmsg, recorder.sent[0]) == theirs(message, 16)
    message = ifinfmsg()
    message["family"] = socket.AF_UNSPEC
    none = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", 1)]}
    message["attrs"] = [("IFLA_IFNAME", "pyctabababab"), ("IFLA_AF_SPEC", {"attrs": [("AF_INET6", none)]})]
    assert decoded(ifinfmsg, recorder.sent[1]) == theirs(message, 16)
    message = ifinfmsg()
    message["family"], message["flags"], message["change"] = socket.AF_UNSPEC, 1, 1
    message["attrs"] = [("IFLA_IFNAME", "pyctabababab")]
    assert decoded(ifinfmsg, recorder.sent[2]) == theirs(message, 16)


def test_an_address_and_a_default_route() -> None:
    message = ifaddrmsg()
    message["family"], message["prefixlen"], message["index"] = socket.AF_INET, 16, 5
    message["attrs"] = [("IFA_LOCAL", str(ADDRESS)), ("IFA_ADDRESS", str(ADDRESS)), ("IFA_BROADCAST", "10.91.255.255")]
    assert ours(ifaddrmsg, 20, links.address_message(5, ADDRESS, SUBNET)) == theirs(message, 20)
    message = rtmsg()
    message["family"], message["table"], message["proto"], message["type"] = socket.AF_INET, 254, 4, 1
    message["attrs"] = [("RTA_GATEWAY", "10.91.0.1"), ("RTA_OIF", 5)]
    assert ours(rtmsg, 24, messages.default_route(5, (SUBNET.network_address + 1).packed)) == theirs(message, 24)


def test_what_the_kernel_lists_is_read_as_pyroute2_reads_it() -> None:
    message = rtmsg()
    message["family"], message["dst_len"], message["type"] = socket.AF_INET, 16, 1
    message["attrs"] = [("RTA_DST", "10.91.0.0"), ("RTA_OIF", 3)]
    message["header"]["type"] = 24
    message.encode()
    prefix, kind, found = messages.parsed_route(bytes(message.data)[16:])
    assert (prefix, kind, found[messages.RTA_DST], found[messages.RTA_OIF][:1]) == (16, 1, bytes([10, 91, 0, 0]), b"\x03")


def _value(data: bytes) -> dict[str, Any]:
    return {"attrs": [("NFTA_DATA_VALUE", data)]}


def _interface(key: Any, name: str, how: Any = Cmp.NFT_CMP_EQ) -> list[Any]:
    name_bytes = name.encode().ljust(16, b"\0")
    return [
        genex("meta", {"key": key, "dreg": Regs.NFT_REG_1}),
        genex("cmp", {"sreg": Regs.NFT_REG_1, "op": how, "data": _value(name_bytes)}),
    ]


RULES = {
    "interface in, accept": (
        rules._interface(messages.IIFNAME, "pyct0") + messages.verdict(1),
        lambda: _interface(Meta.NFT_META_IIFNAME, "pyct0") + verdict(1),
    ),
    "another interface out, masquerade": (
        rules._interface(messages.OIFNAME, "pyct0", messages.DIFFERENT) + messages.masquerade(),
        lambda: _interface(Meta.NFT_META_OIFNAME, "pyct0", Cmp.NFT_CMP_NEQ) + masq(),
    ),
    "source address": (
        rules._source(SUBNET),
        lambda: [
            genex("payload", {"dreg": Regs.NFT_REG_1, "base": 1, "offset": 12, "len": 4}),
            genex("bitwise", {"sreg": Regs.NFT_REG_1, "dreg": Regs.NFT_REG_1, "len": 4,
                              "mask": _value(SUBNET.netmask.packed), "xor": _value(bytes(4))}),
            genex("cmp", {"sreg": Regs.NFT_REG_1, "op": Cmp.NFT_CMP_EQ, "data": _value(SUBNET.network_address.packed)}),
        ],
    ),
    "established": (
        rules._state(rules._ESTABLISHED_RELATED) + messages.verdict(0),
        lambda: [
            genex("ct", {"key": 0, "dreg": Regs.NFT_REG_1}),
            genex("bitwise", {"sreg": Regs.NFT_REG_1, "dreg": Regs.NFT_REG_1, "len": 4,
                              "mask": _value(b"\x06\0\0\0"), "xor": _value(bytes(4))}),
            genex("cmp", {"sreg": Regs.NFT_REG_1, "op": Cmp.NFT_CMP_NEQ, "data": _value(bytes(4))}),
            *verdict(0),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_a_rule(name: str) -> None:
    encoded, expressions = RULES[name]
    body = messages.netfilter(
        messages.attribute(messages.NFTA_RULE_TABLE, "t"),
        messages.attribute(messages.NFTA_RULE_CHAIN, "c"),
        messages.expressions(encoded),
        family=2,
    )
    message = nft_rule_msg()
    message["nfgen_family"] = 2
    message["attrs"] = [("NFTA_RULE_TABLE", "t"), ("NFTA_RULE_CHAIN", "c"), ("NFTA_RULE_EXPRESSIONS", expressions())]
    assert ours(nft_rule_msg, 10 << 8 | 6, body) == theirs(message, 10 << 8 | 6)


def test_table_chain_and_the_borders_of_a_transaction() -> None:
    message = nft_table_msg()
    message["nfgen_family"], message["attrs"] = 2, [("NFTA_TABLE_NAME", "t")]
    assert ours(nft_table_msg, 10 << 8, messages.netfilter(messages.attribute(1, "t"), family=2)) == theirs(message, 10 << 8)

    class Table(rules.Rules):
        def __init__(self) -> None:
            self.table = "t"
            self.netlink = self  # type: ignore[assignment]

        def encode(self, body: bytes, kind: int, flags: int) -> bytes:
            return messages.message(kind, flags, 1, body)

    chain = nft_chain_msg()
    chain["nfgen_family"] = 2
    where = {"attrs": [("NFTA_HOOK_HOOKNUM", 4), ("NFTA_HOOK_PRIORITY", 100)]}
    chain["attrs"] = [("NFTA_CHAIN_TABLE", "t"), ("NFTA_CHAIN_NAME", "postrouting"), ("NFTA_CHAIN_HOOK", where),
                      ("NFTA_CHAIN_TYPE", "nat"), ("NFTA_CHAIN_POLICY", 1)]  # fmt: skip
    assert decoded(nft_chain_msg, Table()._chain("postrouting", "nat", 4, 100)) == theirs(chain, 10 << 8 | 3)
    begin = nfgen_msg()
    begin["res_id"] = 10
    begin.encode()
    assert messages.netfilter(resource=10) == bytes(begin.data)[16:20]
