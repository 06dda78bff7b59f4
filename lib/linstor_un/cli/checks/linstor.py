"""LINSTOR's side: controllers, TLS, the token, nodes, and the options by which DRBD suits VMs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from linstor_un.cli.checks.facts import Configured, Facts, Site
from linstor_un.cli.checks.finding import Finding, error, of_failure, warning
from linstor_un.cluster.survey import Survey
from linstor_un.errors import ControllerFailed, ControllerUnreachable, DriverError, InvalidSetting

_LEAST_DAYS = 21
_NO = ("false", "no", "off", "disabled")
_QUORUM = "DrbdOptions/Resource/quorum"
_ON_NO_QUORUM = "DrbdOptions/Resource/on-no-quorum"
_TIE_BREAKER = "DrbdOptions/auto-add-quorum-tiebreaker"
_AUTO_QUORUM = "DrbdOptions/auto-quorum"
_AUTO_PROMOTE = "DrbdOptions/Resource/auto-promote"
_TWO_PRIMARIES = "DrbdOptions/Net/allow-two-primaries"
_SET = "linstor controller set-property"


def controllers(facts: Facts) -> Iterator[Finding]:
    """Does a controller answer, and may it be trusted?"""
    for site in facts.sites:
        if site.failure:
            yield _unreachable(site.failure)


def _unreachable(failure: DriverError) -> Finding:
    sentence = str(failure)
    if isinstance(failure, InvalidSetting):
        return of_failure("controller-files", failure)
    if "CERTIFICATE_VERIFY_FAILED" in sentence:
        found = of_failure("controller-untrusted", failure)
        remedy = "let LS_CAFILE name the authority that has signed the controller's certificate, or renew that"
        return found._replace(remedy=remedy)
    if "asks for a token" in sentence:
        return of_failure("controller-token", failure)
    if isinstance(failure, ControllerFailed) and "too old" in sentence:
        return of_failure("controller-too-old", failure)
    if isinstance(failure, ControllerUnreachable):
        return of_failure("controller-unreachable", failure)
    return of_failure("controller-fails", failure)


def secrets(facts: Facts) -> Iterator[Finding]:
    """Does the token go where it is meant to?"""
    for site in facts.sites:
        plain = [name for name in site.settings.controllers if not name.startswith(("linstor+ssl://", "https://"))]
        if plain and (site.settings.token or site.settings.token_file):
            what = f"There is a token for {', '.join(plain)}, and it is never sent without TLS"
            yield warning("token-without-tls", what, "write linstor+ssl:// before these names in LS_CONTROLLERS")


def certificates(facts: Facts) -> Iterator[Finding]:
    """Is the controller's certificate valid for a while?"""
    for cluster in _clusters(facts):
        if cluster.certificate_days is not None and cluster.certificate_days < _LEAST_DAYS:
            what = f"The certificate of the LINSTOR controller expires in {max(0, int(cluster.certificate_days))} days"
            yield warning("certificate-expires", what, "renew it")


def _clusters(facts: Facts) -> Iterator[Survey]:
    for site in facts.sites:
        if site.cluster:
            yield site.cluster


def passphrase(facts: Facts) -> Iterator[Finding]:
    """Can volumes be encrypted that are to be?"""
    for site in facts.sites:
        needs = [configured.label for configured in site.stores if _is_encrypted(site, configured)]
        if needs and site.cluster and site.cluster.passphrase in ("locked", "unset"):
            verb = "enter" if site.cluster.passphrase == "locked" else "create"
            what = f"LINSTOR's passphrase is {site.cluster.passphrase}, and {', '.join(needs)} is to be encrypted"
            yield error("passphrase", what, f"run `linstor encryption {verb}-passphrase`")


def _is_encrypted(site: Site, configured: Configured) -> bool:
    group = site.cluster.group(configured.settings.resource_group) if site.cluster else None
    return "LUKS" in (configured.settings.layers or (group.layers if group else ()))


def nodes(facts: Facts) -> Iterator[Finding]:
    """Is every node there, with DRBD 9, and there to stay?"""
    for cluster in _clusters(facts):
        for node in cluster.nodes:
            if node.kind not in ("SATELLITE", "COMBINED"):
                continue
            if node.is_leaving:
                what = f"Node {node.name} is {' '.join(sorted(node.flags)).lower()}: LINSTOR takes its replicas away"
                yield warning("node-leaving", what, f"run `linstor node restore {node.name}`, or remove it for good")
            elif not node.is_online:
                what = f"Node {node.name} is {node.connection}: its replicas fall behind, and no VM can start there"
                remedy = f"start linstor-satellite on {node.name}, and see `linstor node list`"
                yield error("node-offline", what, remedy)
            elif node.without_drbd:
                what = f"Node {node.name} cannot have DRBD volumes ({node.without_drbd})"
                yield error("node-without-drbd", what, "install DRBD 9's kernel module and utilities there")


def options(facts: Facts) -> Iterator[Finding]:
    """Do LINSTOR's options suit VMs: the controller's, and those of the resource groups that datastores name?"""
    for site in facts.sites:
        if site.cluster:
            yield from _unfit(site.cluster.properties, "The controller", _SET, is_top=True)
            for name in dict.fromkeys(stores.settings.resource_group for stores in site.stores):
                group = site.cluster.group(name) if name else None
                if group:
                    command = f"linstor resource-group set-property {group.name}"
                    yield from _unfit(group.properties, f"Resource group {group.name}", command, is_top=False)


def _unfit(properties: Mapping[str, str], who: str, command: str, is_top: bool) -> Iterator[Finding]:
    policy = properties.get(_ON_NO_QUORUM, "io-error" if is_top else "suspend-io")
    if policy != "suspend-io":
        what = f"{who} has on-no-quorum {policy}: VMs get I/O errors, and read-only file systems, when quorum is lost"
        yield warning("quorum-policy", what, f"run `{command} {_ON_NO_QUORUM} suspend-io`")
    if _is(properties, _QUORUM, _NO) or _is(properties, _AUTO_QUORUM, _NO):
        what = f"{who} turns quorum off: two halves of a cluster may both go on writing"
        yield error("quorum-off", what, f"delete {_QUORUM} and {_AUTO_QUORUM} there (`{command} NAME` without a value)")
    if _is(properties, _TIE_BREAKER, _NO):
        what = f"{who} makes no tie-breakers: volumes of two replicas have no quorum"
        yield warning("tie-breaker-off", what, f"run `{command} {_TIE_BREAKER} True`")
    if _is(properties, _AUTO_PROMOTE, _NO):
        what = f"{who} turns auto-promote off: no VM can open its disks"
        yield error("auto-promote-off", what, f"run `{command} {_AUTO_PROMOTE} yes`")
    if _is(properties, _TWO_PRIMARIES, ("yes",)):
        what = f"{who} allows two primaries for all volumes, which the driver does for the time of a migration alone"
        yield error("two-primaries", what, f"delete it (`{command} {_TWO_PRIMARIES}` without a value)")


def _is(properties: Mapping[str, str], key: str, values: tuple[str, ...]) -> bool:
    return properties.get(key, "").lower() in values


CHECKS = (controllers, secrets, certificates, passphrase, nodes, options)
