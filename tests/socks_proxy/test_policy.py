"""The destination policy: nothing that is special is reached, however it is written, unless a rule means it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given, strategies as st

from examples.socks_proxy.addresses import parse_host
from examples.socks_proxy.policy import BadRule, Policy, Rule, parse_rule, special_network


def policy(*rules: str, allow_private: bool = False) -> Policy:
    """Of rules with + or - before them."""
    parsed = {sign: [parse_rule(rule[1:]) for rule in rules if rule[0] == sign] for sign in "+-"}
    return Policy(allow=parsed["+"], deny=parsed["-"], allow_private=allow_private)


def allowed(rules: Policy, address: str, host: str | None = None, port: int = 443) -> bool:
    return rules.refusal(parse_host(host or address), ip_address(address), port) is None


# --- special networks -----------------------------------------------------------------------------


SPECIAL = {
    "0.0.0.0": "unspecified",
    "0.1.2.3": "this network",
    "10.0.0.1": "private",
    "100.64.0.1": "CGNAT",
    "100.100.100.200": "metadata",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "metadata",
    "169.254.1.1": "link-local",
    "169.254.169.254": "metadata",
    "172.16.0.1": "private",
    "172.31.255.255": "private",
    "192.0.0.1": "IETF",
    "192.0.2.1": "documentation",
    "192.88.99.1": "6to4",
    "192.168.255.255": "private",
    "198.18.0.1": "benchmarks",
    "198.19.255.255": "benchmarks",
    "198.51.100.1": "documentation",
    "203.0.113.1": "documentation",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.1": "reserved",
    "255.255.255.255": "broadcast",
    "::": "unspecified",
    "::1": "loopback",
    "::127.0.0.1": "IPv4-compatible",
    "::8.8.8.8": "IPv4-compatible",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:169.254.169.254": "metadata",
    "::ffff:0:8.8.8.8": "IPv4-translated",
    "64:ff9b::127.0.0.1": "carries 127.0.0.1, loopback",
    "64:ff9b::10.1.2.3": "carries 10.1.2.3, a private",
    "64:ff9b::169.254.169.254": "metadata",
    "64:ff9b:1::8.8.8.8": "local NAT64",
    "64:ff9b:1:7f00:1::": "local NAT64",
    "100::1": "discarded",
    "2001:0:7f00:1::1": "Teredo",
    "2001:db8::1": "documentation",
    "2002:7f00:1::1": "carries 127.0.0.1, loopback",
    "2002:c0a8:101::": "carries 192.168.1.1, a private",
    "3fff::1": "documentation",
    "fc00::1": "unique local",
    "fd00:ec2::254": "metadata",
    "fd20:ce::254": "metadata",
    "fdff::1": "unique local",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "febf::1": "link-local",
    "fec0::1": "site-local",
    "ff02::1": "multicast",
    "4000::1": "no global unicast",
}
PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
    "2001:200::1",
    "2606:4700::1111",
    "3ffe:ffff::1",
]


@pytest.mark.parametrize(("address", "reason"), SPECIAL.items())
def test_a_special_address_is_denied_and_the_reason_says_what_it_is(address: str, reason: str) -> None:
    refusal = policy().refusal("name.example", ip_address(address), 80)
    assert refusal is not None
    assert reason in refusal
    assert refusal.startswith("name.example (")
    assert allowed(policy(allow_private=True), address, "name.example")


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str) -> None:
    assert allowed(policy(), address)


_NAT64, _6TO4 = IPv6Network("64:ff9b::/96"), IPv6Network("2002::/16")


@given(address=st.ip_addresses())
def test_what_python_calls_not_global_is_denied(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        # Reserved for Python, since it is no ordinary unicast; public where it carries something public.
        # So is a 6to4 one, from Python 3.14 on.
        carries = mapped is not None or any(address in network for network in (_NAT64, _6TO4))
        assert carries or special_network(address) is not None


@given(address=st.ip_addresses(v=4))
def test_an_address_that_carries_another_is_at_least_as_special(address: IPv4Address) -> None:
    high, low = divmod(int(address), 65536)
    written = [f"::ffff:{address}", f"::{address}", f"64:ff9b::{address}", f"64:ff9b:1::{address}"]
    written.append(f"2002:{high:x}:{low:x}::1")
    if special_network(address) is not None:
        assert not any(allowed(policy(), one) for one in written)
    # And what is denied by a rule is denied in each of its forms.
    denying = policy(f"-{address}", allow_private=True)
    assert not any(allowed(denying, one) for one in written)


def test_a_teredo_address_is_denied_with_either_address_that_it_hides() -> None:
    teredo = "2001:0:4136:e378:8000:63bf:3fff:fdd2"  # server 65.54.227.120, client 192.0.2.45
    assert allowed(policy(allow_private=True), teredo)
    assert not allowed(policy("-65.54.227.120", allow_private=True), teredo)
    assert not allowed(policy("-192.0.2.45", allow_private=True), teredo)


# --- rules ----------------------------------------------------------------------------------------


def test_an_allowing_rule_opens_the_special_network_that_it_means() -> None:
    assert allowed(policy("+10.0.0.0/8"), "10.1.2.3")
    assert allowed(policy("+10.0.0.0/8"), "::ffff:10.1.2.3")
    assert allowed(policy("+::ffff:10.0.0.0/104"), "10.1.2.3")
    assert allowed(policy("+127.0.0.1"), "127.0.0.1")
    assert allowed(policy("+::1"), "::1")
    assert allowed(policy("+64:ff9b::10.0.0.0/104"), "64:ff9b::10.0.0.1")
    assert not allowed(policy("+10.0.0.0/8"), "192.168.0.1")
    assert not allowed(policy("+10.0.0.0/8"), "64:ff9b::10.0.0.1")
    assert not allowed(policy("+127.0.0.1"), "127.0.0.2")


@pytest.mark.parametrize("rule", ["+0.0.0.0/0", "+::/0", "+*", "+*:443", "+168.0.0.0/5", "+64:ff9b::/96"])
def test_an_allowing_rule_that_only_includes_special_networks_does_not_open_them(rule: str) -> None:
    for address in ("10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00::1", "64:ff9b::127.0.0.1"):
        assert not allowed(policy(rule), address)
    for address in ("1.1.1.1", "2606:4700::1111", "64:ff9b::8.8.8.8"):
        assert allowed(policy(rule), address)


def test_a_link_local_network_that_is_allowed_does_not_open_the_metadata_in_it() -> None:
    assert allowed(policy("+169.254.0.0/16"), "169.254.1.1")
    assert not allowed(policy("+169.254.0.0/16"), "169.254.169.254")
    assert allowed(policy("+169.254.169.254"), "169.254.169.254")


def test_a_name_that_is_allowed_may_resolve_to_anything_and_no_other_name_may() -> None:
    rules = policy("+Intern.Example.")
    assert allowed(rules, "10.0.0.1", "intern.example")
    assert allowed(rules, "10.0.0.1", "intern.example.")
    assert not allowed(rules, "10.0.0.1", "other.example")
    assert not allowed(rules, "10.0.0.1", "sub.intern.example")
    assert not allowed(rules, "10.0.0.1")


def test_a_star_stands_for_all_subdomains_and_not_for_the_domain() -> None:
    rules = policy("-*.example.org", "+*.intern.example")
    assert not allowed(rules, "1.1.1.1", "www.example.org")
    assert not allowed(rules, "1.1.1.1", "a.b.example.org.")
    assert allowed(rules, "1.1.1.1", "example.org")
    assert allowed(rules, "1.1.1.1", "notexample.org")
    assert allowed(rules, "10.0.0.1", "db.intern.example")


def test_a_denying_rule_goes_before_an_allowing_one() -> None:
    rules = policy("+10.0.0.0/8", "-10.0.0.5", "+bad.example", "-bad.example")
    assert allowed(rules, "10.0.0.4")
    assert not allowed(rules, "10.0.0.5")
    assert not allowed(rules, "1.1.1.1", "bad.example")
    assert not allowed(policy("-10.0.0.0/8", allow_private=True), "10.0.0.1", "good.example")
    refusal = rules.refusal("bad.example", IPv4Address("1.1.1.1"), 80)
    assert refusal == "bad.example (1.1.1.1:80) is denied by the rule 'bad.example'"


def test_denying_all_leaves_what_is_allowed() -> None:
    rules = policy("-*", "+example.org:443", "+192.0.2.0/24", "+1.1.1.1")
    assert allowed(rules, "8.8.8.8", "example.org")
    assert not allowed(rules, "8.8.8.8", "example.org", port=80)
    assert allowed(rules, "192.0.2.1")
    assert allowed(rules, "1.1.1.1")
    refusal = rules.refusal(IPv6Address("2606:4700::1111"), IPv6Address("2606:4700::1111"), 443)
    assert refusal == "[2606:4700::1111]:443 is denied by the rule '*'"


def test_ports_alone_can_be_allowed_and_denied() -> None:
    assert not allowed(policy("-*:25"), "1.1.1.1", port=25)
    assert allowed(policy("-*:25"), "1.1.1.1", port=587)
    only_web = policy("-*", "+*:80", "+*:443")
    assert [allowed(only_web, "1.1.1.1", port=port) for port in (80, 443, 22)] == [True, True, False]
    assert not allowed(only_web, "127.0.0.1", port=80)
    assert allowed(policy("-*", "+*:80", allow_private=True), "127.0.0.1", port=80)


def test_a_rule_with_a_port_is_about_that_port_only() -> None:
    rules = policy("+127.0.0.1:8080", "-1.1.1.1:53", "+[::1]:8080")
    assert [allowed(rules, "127.0.0.1", port=port) for port in (8080, 8081)] == [True, False]
    assert [allowed(rules, "::1", port=port) for port in (8080, 8081)] == [True, False]
    assert [allowed(rules, "1.1.1.1", port=port) for port in (53, 54)] == [False, True]


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "target", "port"),
    [
        ("10.0.0.0/8", "10.0.0.0/8", None),
        ("10.0.0.0/8:443", "10.0.0.0/8", 443),
        ("10.1.2.3", "10.1.2.3/32", None),
        ("10.1.2.3:*", "10.1.2.3/32", None),
        ("::1", "::1/128", None),
        ("[::1]:65535", "::1/128", 65535),
        ("fd00::/8", "fd00::/8", None),
        ("[fd00::/8]:1", "fd00::/8", 1),
        ("[fd00::]/8:1", "fd00::/8", 1),
        ("::ffff:10.0.0.1", "10.0.0.1/32", None),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8", None),
        (" Example.ORG:80 ", "example.org", 80),
        ("b\u00fccher.example", "xn--bcher-kva.example", None),
        ("*.Example.org", "*.example.org", None),
        ("*", "*", None),
        ("*:25", "*", 25),
    ],
)
def test_a_rule_is_read(text: str, target: str, port: int | None) -> None:
    rule = parse_rule(text)
    assert (rule.text, str(rule.target), rule.port) == (text.strip(), target, port)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no host"),
        (":80", "names no host"),
        ("10.0.0.1/8", r"did you mean 10\.0\.0\.0/8\?"),
        ("10.0.0.0/33", "is no network"),
        ("10.0.0.0/", "is no network"),
        ("example.org:", "port ''"),
        ("example.org:0", "port '0'"),
        ("example.org:65536", "port '65536'"),
        ("example.org:http", "port 'http'"),
        ("10.0.0.0/8:-1", "port '-1'"),
        ("[::1", "is no rule"),
        ("[::1]]:80", "is no rule"),
        ("a:b:c", "host name that cannot be"),
        ("exa mple", "host name that cannot be"),
        ("fe80::1%eth0", "host name that cannot be"),
        ("*.10.0.0.1", "no subdomains"),
        ("a.*.b", "host name that cannot be"),
        ("http://example.org", "is no"),
    ],
)
def test_a_rule_that_is_none_says_what_is_wrong_with_it(text: str, says: str) -> None:
    with pytest.raises(BadRule, match=says) as raised:
        parse_rule(text)
    assert repr(text) in str(raised.value)


@given(text=st.text(max_size=30) | st.text("0123456789abcdef.:/[]*%", max_size=20))
def test_no_text_raises_anything_but_a_bad_rule(text: str) -> None:
    try:
        rule = parse_rule(text)
    except BadRule:
        return
    assert isinstance(rule, Rule)
    policy(f"+{text}", f"-{text}").refusal("example.org", IPv6Address("64:ff9b::1"), 1)
